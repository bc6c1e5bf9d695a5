// Everything BertViz's scripts expect around them: libraries, parameters, a place to draw, and fewer lines.
(() => {
  const WIDTHS = { model: 970, neuron: 1030, head: 350 }; // px that a view wants, neuron when expanded
  const NARROWEST = { model: 0.5, neuron: 0.7, head: 1 }; // a view is shrunk to this before it scrolls sideways

  window.require = { config() {} };
  window.requirejs = (names, start) => start(window.jQuery, window.d3);

  // BertViz draws a line for each pair of tokens, the invisible ones included. Those are left out here: d3's `select`
  // leaves a hole where its function returns null, so the others keep their places.
  function drawOnlyAbove(threshold, faintest) {
    const create = { line: d3.creator("svg:line"), path: d3.creator("svg:path"), rect: d3.creator("svg:rect") };
    const append = d3.selection.prototype.append;
    d3.selection.prototype.append = function (name) {
      if (!(name in create)) return append.call(this, name);
      return this.select(function (datum) {
        const group = this._parent?.classList;
        const least = group?.contains("attn-line-group") ? faintest : threshold; // that of a head by itself: all it has
        const weight = name !== "rect" || group?.contains("vector-highlight-group");
        if (weight && typeof datum === "number" && datum <= least) return null;
        return this.appendChild(create[name].apply(this, arguments));
      });
    };
  }

  // (L, H, S, S) nested arrays, as BertViz reads them; a layer is unfolded when it is first asked for.
  function unfold(data, makeHead) {
    const layers = [];
    data.layers.forEach((_, layer) => {
      let unfolded;
      Object.defineProperty(layers, layer, {
        enumerable: true,
        get: () => (unfolded ??= Array.from({ length: data.heads }, (_, head) => makeHead(layer * data.heads + head))),
      });
    });
    return layers;
  }

  function weightsOf(data) {
    const size = data.labels.length;
    return (index) => {
      let offset = (index * size * (size + 1)) / 2;
      // The model view asks for nothing after the diagonal; not to give it the zeros halves its work.
      return Array.from({ length: size }, (_, row) =>
        Array.from({ length: data.view === "model" ? row + 1 : size },
          (_, column) => (column <= row ? data.weights[offset++] / 10000 : 0)));
    };
  }

  function vectorsOf(data, name) {
    const [size, width] = [data.labels.length, data.vector_size];
    return (index) => Array.from({ length: size }, (_, row) => {
      const vector = index * size + row;
      const scale = data[name + "_scale"][vector];
      return Array.from({ length: width }, (_, i) => data[name][vector * width + i] * scale);
    });
  }

  function parameters(data, dark) {
    const filter = data.view === "neuron" ? "all" : "0";
    const attention = { name: null, attn: unfold(data, weightsOf(data)), left_text: data.labels, right_text: data.labels };
    if (data.view === "neuron") {
      attention.queries = unfold(data, vectorsOf(data, "queries"));
      attention.keys = unfold(data, vectorsOf(data, "keys"));
    }
    const head = data.head ?? null;
    return {
      attention: { [filter]: attention },
      default_filter: filter,
      root_div_id: "bertviz",
      display_mode: dark ? "dark" : "light",
      bidirectional: false,
      include_layers: data.layers,
      include_heads: Array.from({ length: data.heads }, (_, i) => i),
      total_heads: data.heads,
      layer: data.view === "neuron" ? data.layers.indexOf(data.layer) : data.layer, // it counts the layers it is given
      head,
      heads: head === null ? null : [head],
      box_height: data.box_height,
    };
  }

  // Plays the tokens in the order of generation, as if the pointer went down the left column.
  function playButton(place) {
    const button = document.createElement("button");
    button.id = "play";
    const tokens = () => [...place.querySelectorAll("#left > g:nth-child(2) > g, #leftText > g")]
      .filter((g) => getComputedStyle(g).visibility !== "hidden");
    let timer = null;
    let position = 0;
    const label = () => { button.textContent = timer ? "⏸ 暫停" : "▶ 依生成順序播放"; };
    const stop = () => { clearInterval(timer); timer = null; label(); };
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (position >= tokens().length) position = 0;
      const step = () => {
        const token = tokens()[position++];
        if (!token) return stop();
        token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
      };
      timer = setInterval(step, 600);
      step();
      label();
    });
    label();
    return button;
  }

  // Wide views shrink with the cell, down to what can still be read; below that the page scrolls sideways.
  function fitWidth(place, view) {
    const wide = WIDTHS[view];
    const shrink = () => {
      const expanded = view !== "neuron" || document.querySelector("#expanded[visibility=visible]");
      place.style.zoom = expanded ? Math.max(NARROWEST[view], Math.min(1, (window.innerWidth - 20) / wide)) : 1;
      place.style.minWidth = expanded ? wide + "px" : "440px";
    };
    shrink();
    window.onresize = shrink;
    place.addEventListener("click", () => setTimeout(shrink));
  }

  function select(id, text) {
    const label = document.createElement("label");
    label.className = "dropdown-label";
    label.append(text + " ", Object.assign(document.createElement("select"), { id }));
    return label;
  }

  let prepared = false;
  window.drawView = (stage, data, dark) => {
    if (!prepared) {
      d3.schemeCategory10 = data.colours;
      drawOnlyAbove(data.threshold, data.faintest);
      prepared = true;
    }
    const place = Object.assign(document.createElement("div"), { id: "bertviz" });
    place.dataset.view = data.view;
    const bar = Object.assign(document.createElement("div"), { id: "bar" });
    if (data.view !== "model") bar.append(select("layer", "Layer"));
    if (data.view === "neuron") bar.append(select("att_head", "Head"));
    if (data.view !== "model") bar.append(playButton(place));
    place.append(bar, Object.assign(document.createElement("div"), { id: "vis" }));
    stage.append(place);

    window.bertviz_params = parameters(data, dark);
    data.run(data.bertviz);
    if (data.view === "neuron") {
      [...place.querySelectorAll("#layer option")].forEach((option, i) => { option.textContent = data.layers[i]; });
    }
    if (data.view === "model" && data.head !== null) {
      const name = `#attn_background_${data.layers.indexOf(data.layer)}_${data.head}`;
      place.querySelector(name).parentNode.lastChild.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    }
    fitWidth(place, data.view);
  };
})();
