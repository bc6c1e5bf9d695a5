// Unpacks the page, draws it light or dark as its surroundings are, and fits the frame around it.
(async () => {
  const root = document.documentElement;
  const main = document.querySelector("main");
  const stage = document.getElementById("stage");
  const TALLEST = 2400; // px; a longer page scrolls inside its frame

  async function unpack() {
    const text = atob(document.getElementById("payload").textContent);
    const packed = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());

    const length = new DataView(bytes.buffer).getUint32(0, true);
    const data = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
    const kinds = { uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, float32: Float32Array };
    let offset = 4 + length;
    for (const [name, kind, size] of data.layout) {
      const array = new kinds[kind](size);
      const width = array.BYTES_PER_ELEMENT;
      const target = new Uint8Array(array.buffer);
      for (let plane = 0; plane < width; plane++) {
        for (let i = 0; i < size; i++) target[i * width + plane] = bytes[offset++];
      }
      data[name] = array;
    }
    return data;
  }

  // The page's own ancestors as far as they may be seen: notebook, webview, Colab's frame.
  function ancestors() {
    const found = [];
    try {
      for (let w = window; w !== w.parent && w.parent.document; w = w.parent) found.push(w.parent.document);
    } catch { /* another origin: its theme is not ours to know */ }
    return found;
  }

  function wantsDark() {
    if (root.dataset.mode !== "auto") return root.dataset.mode === "dark";
    for (const { body, documentElement } of ancestors()) {
      if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false"; // JupyterLab, Notebook 7
      if (body.dataset.vscodeThemeKind) return /dark|^vscode-high-contrast$/.test(body.dataset.vscodeThemeKind);
      if (documentElement.getAttribute("theme")) return documentElement.getAttribute("theme") === "dark"; // Colab
    }
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function fit() {
    let frame = null;
    try { frame = window.frameElement; } catch { /* another origin: the frame keeps its height */ }
    if (!frame) return;
    frame.style.height = Math.min(main.scrollHeight + 20, TALLEST) + "px";
    const standIn = frame.previousElementSibling;
    if (standIn) standIn.style.display = "none";
  }

  function run(source) {
    const script = document.createElement("script");
    script.textContent = source;
    document.body.append(script);
    script.remove();
  }

  let data;
  try {
    data = await unpack();
  } catch (error) {
    stage.textContent = "這個瀏覽器打不開這一頁的資料，請換新一點的瀏覽器（" + error.message + "）。";
    fit();
    return;
  }
  data.run = run;
  data.scripts.forEach(run);

  function draw() {
    const dark = wantsDark();
    root.dataset.theme = dark ? "dark" : "light";
    stage.replaceChildren();
    window.drawView(stage, data, dark);
    fit();
    requestAnimationFrame(() => requestAnimationFrame(() => { root.dataset.drawn = performance.now(); }));
  }
  draw();
  new ResizeObserver(fit).observe(stage);

  const follow = () => { if ((root.dataset.theme === "dark") !== wantsDark()) draw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", follow);
  for (const { body, documentElement } of ancestors()) {
    new MutationObserver(follow).observe(body, { attributes: true });
    new MutationObserver(follow).observe(documentElement, { attributes: true });
  }
})();
