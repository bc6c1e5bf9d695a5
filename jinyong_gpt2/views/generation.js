// The generation view: play, step or slide through the text; shade what the newest character looks at.
(() => {
  const STEP_MS = 450;
  let kept = null; // step, layer and head outlive a change between light and dark

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Row `step` of a layer and head, or of all its heads together: what the newest character looks at.
  function row(data, step, layer, head) {
    const size = data.labels.length;
    const area = (size * (size + 1)) / 2;
    const one = (h) => {
      const offset = (data.layers.indexOf(layer) * data.heads + h) * area + (step * (step + 1)) / 2;
      return data.weights.subarray(offset, offset + step + 1);
    };
    if (typeof head === "number") return Array.from(one(head), (w) => w / 10000);
    const rows = Array.from({ length: data.heads }, (_, h) => one(h));
    return Array.from({ length: step + 1 }, (_, i) => {
      const column = rows.map((r) => r[i] / 10000);
      return head === "max" ? Math.max(...column) : column.reduce((a, b) => a + b) / data.heads;
    });
  }

  window.drawView = (stage, data, dark) => {
    const size = data.labels.length;
    const last = size - 1;
    const state = (kept ??= {
      step: Math.min(Math.max(data.prompt_length - 1, 0), last), layer: data.layer, head: data.head, timer: null,
    });
    clearInterval(state.timer);
    state.timer = null;

    const play = element("button", { id: "play" });
    const back = element("button", { id: "back", textContent: "◀", title: "上一個字" });
    const forward = element("button", { id: "forward", textContent: "▶", title: "下一個字" });
    const slider = element("input", { id: "step", type: "range", min: 0, max: last, ariaLabel: "第幾個字" });
    const count = element("span", { id: "count" });
    const layers = element("select", { id: "layer" }, ...data.layers.map((l) => new Option(l, l)));
    const heads = element("select", { id: "head" }, new Option("平均", "mean"), new Option("最大", "max"),
      ...Array.from({ length: data.heads }, (_, h) => new Option(h, h)));
    layers.value = state.layer;
    heads.value = state.head;
    const bar = element("div", { id: "bar" }, play, back, forward, slider, count,
      element("label", {}, "Layer ", layers), element("label", {}, "Head ", heads));

    const tokens = data.labels.map((label, i) => {
      const control = i === 0 && data.control;
      const written = i >= data.prompt_length && data.prompt_length > data.control;
      return element("span", { className: `token${control ? " control" : ""}${written ? " written" : ""}`, textContent: label });
    });
    const text = element("p", { id: "text" });
    tokens.forEach((token, i) => {
      text.append(token);
      if (data.labels[i] === "⏎") text.append(document.createElement("br"));
    });
    const legend = element("p", { id: "legend" });
    const next = element("ol", { id: "next" });
    stage.append(bar, element("div", { id: "columns" },
      element("div", {}, text, legend),
      element("div", {}, element("p", { className: "heading", textContent: "下一個字" }), next)));

    function shade() {
      const weights = row(data, state.step, state.layer, state.head);
      // The control token often takes most of the attention; the shades compare the characters with each other.
      const others = data.control && state.step > 0 ? weights.slice(1) : weights;
      const strongest = Math.max(...others, 1e-6);
      tokens.forEach((token, i) => {
        const weight = weights[i] ?? 0;
        token.classList.toggle("future", i > state.step);
        token.classList.toggle("newest", i === state.step);
        token.style.setProperty("--shade", Math.min(1, weight / strongest).toFixed(3));
        token.title = i <= state.step ? `${data.labels[i]}：${weight.toFixed(3)}` : "";
      });
      const control = data.control ? `；${data.labels[0]} 分到 ${weights[0].toFixed(2)}` : "";
      legend.textContent = `「${data.labels[state.step]}」看得最重的字佔 ${strongest.toFixed(2)}${control}。`;
    }

    function guesses() {
      const actual = data.labels[state.step + 1];
      next.replaceChildren(...data.next[state.step].map(([label, probability]) => {
        const item = element("li", { className: label === actual ? "actual" : "" },
          element("span", { className: "label", textContent: label }),
          element("span", { className: "meter" }),
          element("span", { className: "probability", textContent: (probability * 100).toFixed(1) + "%" }));
        item.style.setProperty("--share", probability);
        return item;
      }));
    }

    function show() {
      slider.value = state.step;
      count.textContent = `${state.step + 1}／${size}`;
      play.textContent = state.timer ? "⏸ 暫停" : "▶ 播放";
      shade();
      guesses();
    }

    function pause() {
      clearInterval(state.timer);
      state.timer = null;
    }

    function go(step) {
      state.step = Math.min(Math.max(step, 0), last);
      if (state.step === last) pause();
      show();
    }

    play.onclick = () => {
      if (state.timer) {
        pause();
        return show();
      }
      state.timer = setInterval(() => go(state.step + 1), STEP_MS);
      go(state.step === last ? 0 : state.step + 1);
    };
    back.onclick = () => { pause(); go(state.step - 1); };
    forward.onclick = () => { pause(); go(state.step + 1); };
    slider.oninput = () => { pause(); go(Number(slider.value)); };
    layers.onchange = () => { state.layer = Number(layers.value); show(); };
    heads.onchange = () => { state.head = isNaN(heads.value) ? heads.value : Number(heads.value); show(); };
    show();
  };
})();
