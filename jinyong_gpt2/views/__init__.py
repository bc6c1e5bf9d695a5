"""The pages and pictures that attention and passages are drawn with: small HTML, JavaScript and CSS of our own."""
