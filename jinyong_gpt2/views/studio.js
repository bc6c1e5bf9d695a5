// The studio's board: cards that grow, the tree of versions, what else a character could have been, attention.
// All text is data: it goes into text nodes, never into markup.

const FULL_SHADE = 12; // bits of surprise at which the shading is strongest
const LINGER = 220; // ms a pop-up stays when the pointer has left it
const VIEWS = [["model", "模型全景"], ["head", "注意力頭"], ["neuron", "神經元"], ["generation", "逐字生成"]];
const VISIBLE = { "\n": "⏎", " ": "␣", "\u3000": "␣", "\t": "⇥" };
const TYPES = { txt: "text/plain", md: "text/markdown", html: "text/html" };

const visible = (text) => VISIBLE[text] ?? text;
const percent = (p) => (p >= 0.0995 ? (p * 100).toFixed(0) : (p * 100).toFixed(1)) + "%";

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// ---------------------------------------------------------------- light or dark, as the notebook is

function wantsDark() {
  const { body, documentElement } = document;
  if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "false"; // JupyterLab, Notebook 7, Voila
  if (body.dataset.vscodeThemeKind) return /dark|^vscode-high-contrast$/.test(body.dataset.vscodeThemeKind);
  if (documentElement.getAttribute("theme")) return documentElement.getAttribute("theme") === "dark"; // Colab
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function followTheme(root) {
  const set = () => { root.dataset.theme = wantsDark() ? "dark" : "light"; };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(set);
  for (const node of [document.body, document.documentElement]) observer.observe(node, { attributes: true });
  system.addEventListener("change", set);
  set();
  return () => { observer.disconnect(); system.removeEventListener("change", set); };
}

// ---------------------------------------------------------------- one passage

class Card {
  constructor(board, version, data) {
    Object.assign(this, { board, version, index: data.index, bits: [], others: [], spans: [], chosen: null });
    const name = `第 ${data.index + 1} 稿`;
    const facts = [data.novel && `《${data.novel}》`, `種子 ${data.seed}`, data.candidate && `第 ${data.candidate} 號`,
      data.changes.join(" ")].filter(Boolean).join(" · ");
    this.surprise = element("span");
    this.written = element("span", {
      className: "jy-written", role: "group",
      "aria-label": `${name}寫出來的字。方向鍵移動，Enter 看別的寫法。`,
    });
    this.sources = element("ul", { className: "jy-sources", hidden: true });
    this.pin = element("button", { type: "button", onclick: () => this.send("pin", { on: !this.pinned }) });
    const attention = element("select", { "aria-label": `${name}的注意力`, title: "寫的時候在看哪些字；點過一個字，就看到那個字為止" },
      new Option("注意力", ""), ...VIEWS.map(([view, label]) => new Option(label, view)));
    attention.onchange = () => {
      if (attention.value) this.send("attend", { view: attention.value, place: this.chosen });
      attention.value = "";
    };
    const tool = (label, act, title) =>
      element("button", { type: "button", textContent: label, title, onclick: () => this.send(act) });
    this.element = element("article", { className: "jy-card", "aria-label": name },
      element("header", {}, element("b", { textContent: name }), ` · ${facts}`, this.surprise),
      element("p", { className: "jy-text" },
        data.prompt ? element("span", { className: "jy-prompt", textContent: data.prompt }) : "", this.written),
      this.sources,
      element("div", { className: "jy-tools" }, this.pin, tool("續寫", "continue", "從這一稿的結尾接著寫"),
        tool("重寫", "again", "把這一稿新寫的部分重寫一次"), attention));
    this.setPinned(false);
    this.grow(0, data);
  }

  send(act, more = {}) {
    this.board.send(act, { version: this.version, index: this.index, ...more });
  }

  get characters() { return this.written.childNodes; }

  // Characters from place `at` on; those that are here already stay. False where some before them are missing.
  grow(at, { text, bits, others }) {
    const have = this.characters.length;
    const added = Array.from(text);
    if (at > have) return false;
    const made = [];
    for (let i = have - at; i < added.length; i++) {
      const span = element("span", { textContent: added[i], tabIndex: -1, role: "button" });
      span.place = at + i;
      if (bits[i] != null) span.style.setProperty("--s", Math.min(bits[i] / FULL_SHADE, 1).toFixed(2));
      this.bits.push(bits[i]);
      this.others.push(others[i]);
      made.push(span);
    }
    this.written.append(...made);
    if (have === 0 && made.length) made[0].tabIndex = 0;
    const known = this.bits.filter((b) => b != null);
    const mean = known.reduce((a, b) => a + b, 0) / known.length;
    this.surprise.textContent = known.length ? ` · ${this.bits.length} 字 · ${mean.toFixed(2)} bits/字` : "";
    return true;
  }

  setPinned(on) {
    this.pinned = on;
    this.pin.textContent = on ? "★ 已釘選" : "☆ 釘選";
    this.pin.setAttribute("aria-pressed", on);
    this.element.classList.toggle("jy-pinned", on);
  }

  setCopies(spans) {
    this.spans = spans;
    const places = new Set(spans.flatMap(([start, stop]) => Array.from({ length: stop - start }, (_, i) => start + i)));
    this.characters.forEach((span, i) => span.classList.toggle("jy-copied", places.has(i)));
    this.sources.replaceChildren(...(spans.length
      ? spans.map(([start, stop, source]) => element("li", { textContent: `照抄 ${stop - start} 字：${source}` }))
      : [element("li", { textContent: "沒有照抄的長句" })]));
  }

  sourceAt(place) {
    return this.spans.filter(([start, stop]) => start <= place && place < stop).map(([, , source]) => source).join("、");
  }

  // Only one character of a card is reached with Tab; arrow keys go on from it.
  focus(place, options = {}) {
    const target = this.characters[Math.max(0, Math.min(place, this.characters.length - 1))];
    if (!target) return;
    this.written.querySelectorAll('[tabindex="0"]').forEach((span) => { span.tabIndex = -1; });
    target.tabIndex = 0;
    this.chosen = target.place;
    target.focus(options);
  }

  // The character above or below, where it stands on the page.
  vertical(span, step) {
    const from = span.getBoundingClientRect();
    const middle = from.left + from.width / 2;
    let best = null;
    for (let i = span.place + step; i >= 0 && i < this.characters.length; i += step) {
      const box = this.characters[i].getBoundingClientRect();
      const line = Math.round(Math.abs(box.top - from.top) / Math.max(from.height, 1));
      if (line === 0) continue;
      if (best && line > best.line) break;
      const distance = Math.abs(box.left + box.width / 2 - middle);
      if (!best || distance < best.distance) best = { line, distance, place: i };
    }
    return best ? best.place : span.place;
  }
}

// ---------------------------------------------------------------- what else a character could have been

class PopUp {
  constructor(board) {
    this.board = board;
    this.element = element("div", { className: "jy-pop", role: "dialog", "aria-label": "這個字的別的寫法", hidden: true });
    if ("popover" in this.element) this.element.popover = "manual";
    this.element.addEventListener("pointerenter", () => clearTimeout(this.timer));
    this.element.addEventListener("pointerleave", () => this.leave());
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("focusout", (event) => {
      if (!this.element.contains(event.relatedTarget) && event.relatedTarget !== this.span) this.close();
    });
  }

  open(card, span, held) {
    clearTimeout(this.timer);
    if (this.span === span && !this.element.hidden) {
      this.held ||= held;
      return;
    }
    this.close();
    Object.assign(this, { card, span, held });
    const place = span.place;
    const bits = card.bits[place];
    const source = card.sourceAt(place);
    const act = (act, more, event) => {
      event.stopPropagation();
      this.close();
      this.board.wanted = { place, from: card.version }; // the focus goes on to this place in the new version
      card.send(act, { start: place, ...more });
    };
    const others = (card.others[place] ?? []).map(([text, p]) => {
      const whole = Array.from(text).length === 1; // a byte of a rare character, or a control token, is none
      const taken = text === span.textContent;
      const button = element("button", {
        type: "button", disabled: !whole || taken, className: taken ? "jy-taken" : "",
        title: taken ? "現在寫的就是這個字" : `改成「${visible(text)}」，從這裡分枝`,
        onclick: (event) => act("branch", { insert: text }, event),
      }, element("span", { textContent: whole ? visible(text) : "…" }),
      element("span", { className: "jy-meter", style: `--p:${p}` }),
      element("span", { className: "jy-number", textContent: percent(p) }));
      return button;
    });
    const here = bits == null ? "" : `　機率 ${percent(2 ** -bits)}　${bits.toFixed(1)} bits`;
    this.element.replaceChildren(
      element("p", {}, element("b", { textContent: visible(span.textContent) }), here),
      ...(source ? [element("p", { textContent: `照抄：${source}` })] : []),
      ...others,
      element("button", { type: "button", className: "jy-plain", textContent: "從這個字起重寫",
        onclick: (event) => act("rewrite", {}, event) }));
    span.classList.add("jy-open");
    this.element.hidden = false;
    this.element.showPopover?.();
    this.stand();
  }

  // Below its character, or above where there is no room; never beyond the window.
  stand() {
    const at = this.span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const below = at.bottom + 3 + height <= innerHeight || at.top - 3 - height < 0;
    const left = Math.max(4, Math.min(at.left - 8, document.documentElement.clientWidth - width - 4));
    this.element.style.left = `${left}px`;
    this.element.style.top = `${below ? at.bottom + 3 : at.top - 3 - height}px`;
  }

  follow() {
    if (this.element.hidden) return;
    const { top, bottom } = this.span.getBoundingClientRect();
    if (bottom < 0 || top > innerHeight) this.close();
    else this.stand();
  }

  leave() {
    clearTimeout(this.timer);
    if (!this.held) this.timer = setTimeout(() => this.close(), LINGER);
  }

  close() {
    clearTimeout(this.timer);
    if (this.element.hidden) return;
    this.span?.classList.remove("jy-open");
    if ("popover" in this.element && this.element.matches(":popover-open")) this.element.hidePopover();
    this.element.hidden = true;
    this.span = null;
    this.held = false;
  }

  enter() {
    this.element.querySelector("button:not(:disabled)")?.focus();
  }

  key(event) {
    const buttons = [...this.element.querySelectorAll("button:not(:disabled)")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") {
      const { card, span } = this;
      const place = span.place;
      this.close();
      card.quiet = true; // back on its character, without opening again
      card.focus(place);
    } else if (step) {
      buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// ---------------------------------------------------------------- the board

class Board {
  constructor(model, host) {
    this.model = model;
    this.cards = new Map();
    this.version = null;
    this.wanted = null;
    this.tree = { versions: [], current: 0, pins: [] };
    this.source = "";
    this.line = element("p", { className: "jy-line", role: "status", textContent: "正在連上 Python……一直停在這裡的話，請重新執行這一格。" });
    this.toggles = [["shade", "意外程度", "底色越深，模型自己越覺得意外"], ["copies", "標出照抄", "和語料逐字相同的長句"],
      ["original", "對照原文", "開頭取自語料時，原書接下去怎麼寫"]].map(([name, label, title]) => {
      const button = element("button", { type: "button", textContent: label, title });
      button.onclick = () => { model.set(name, !model.get(name)); model.save_changes(); };
      return [name, button];
    });
    this.desk = element("div", { className: "jy-cards" });
    this.list = element("ul", { role: "tree", "aria-label": "版本" });
    this.nav = element("nav", { className: "jy-tree", "aria-label": "版本樹" },
      element("h4", { textContent: "版本" }), this.list);
    this.viewTitle = element("b");
    this.viewFrame = element("div");
    this.view = element("section", { className: "jy-view", hidden: true, "aria-label": "注意力" },
      element("header", {}, this.viewTitle,
        element("button", { type: "button", textContent: "收起", onclick: () => this.send("close") })),
      this.viewFrame);
    this.pop = new PopUp(this);
    this.root = element("section", { className: "jy-studio", "aria-label": "稿子與版本" },
      element("div", { className: "jy-bar" }, ...this.toggles.map(([, button]) => button), this.line),
      element("div", { className: "jy-desk" }, this.desk, this.nav), this.view, this.pop.element);
    host.append(this.root);
    this.listen();
  }

  send(act, more = {}) {
    this.model.send({ do: act, ...more });
  }

  listen() {
    const told = (message) => this[`on_${message.type}`]?.(message);
    const looks = () => this.showLooks();
    this.model.on("msg:custom", told);
    for (const [name] of this.toggles) this.model.on(`change:${name}`, looks);
    const scrolled = () => this.pop.follow();
    const pressed = (event) => {
      if (!this.pop.element.contains(event.target)) this.pop.close();
    };
    // Plain keys are the board's and not the notebook's: in JupyterLab an "x" would cut the cell. Ctrl+S still saves.
    const ours = (event) => !event.ctrlKey && !event.metaKey && this.root.contains(event.target);
    const typed = (event) => this.root.toggleAttribute("data-lm-suppress-shortcuts", ours(event));
    this.root.addEventListener("keydown", (event) => { if (ours(event)) event.stopPropagation(); });
    addEventListener("keydown", typed, true);
    addEventListener("scroll", scrolled, true);
    addEventListener("pointerdown", pressed, true);
    const stopTheme = followTheme(this.root);
    this.close = () => {
      stopTheme();
      removeEventListener("keydown", typed, true);
      removeEventListener("scroll", scrolled, true);
      removeEventListener("pointerdown", pressed, true);
      this.model.off("msg:custom", told);
      for (const [name] of this.toggles) this.model.off(`change:${name}`, looks);
      this.pop.close();
    };
    this.listenToCharacters();
    this.listenToTree();
    this.showLooks();
    this.send("hello");
  }

  listenToCharacters() {
    const found = (event) => {
      const span = event.target.closest?.(".jy-written > span");
      const card = span && [...this.cards.values()].find((c) => c.written === span.parentNode);
      return card ? [card, span] : [];
    };
    this.desk.addEventListener("pointerover", (event) => {
      const [card, span] = found(event);
      if (span && event.pointerType !== "touch" && !this.pop.held) this.pop.open(card, span, false);
    });
    this.desk.addEventListener("pointerout", (event) => { if (found(event)[1]) this.pop.leave(); });
    this.desk.addEventListener("click", (event) => {
      const [card, span] = found(event);
      if (!span) return;
      card.focus(span.place);
      this.pop.open(card, span, true);
    });
    this.desk.addEventListener("focusin", (event) => {
      const [card, span] = found(event);
      if (!span) return;
      span.setAttribute("aria-label", `${visible(span.textContent)}，第 ${span.place + 1} 字`);
      if (!card.quiet) this.pop.open(card, span, false);
      card.quiet = false;
    });
    this.desk.addEventListener("focusout", (event) => {
      if (found(event)[1] && !this.pop.element.contains(event.relatedTarget)) this.pop.leave();
    });
    this.desk.addEventListener("keydown", (event) => {
      const [card, span] = found(event);
      if (!span || event.ctrlKey || event.altKey || event.metaKey) return;
      const last = card.characters.length - 1;
      const to = { ArrowLeft: span.place - 1, ArrowRight: span.place + 1, Home: 0, End: last }[event.key];
      if (to !== undefined) card.focus(to);
      else if (event.key === "ArrowUp") card.focus(card.vertical(span, -1));
      else if (event.key === "ArrowDown") card.focus(card.vertical(span, 1));
      else if (event.key === "Enter" || event.key === " ") {
        this.pop.open(card, span, true);
        this.pop.enter();
      } else if (event.key === "Escape") this.pop.close();
      else return;
      event.preventDefault();
    });
  }

  listenToTree() {
    const item = (event) => event.target.closest?.('[role="treeitem"]');
    this.list.addEventListener("click", (event) => {
      if (item(event)) this.send("visit", { version: item(event).version });
    });
    this.list.addEventListener("keydown", (event) => {
      const at = item(event);
      if (!at || event.ctrlKey || event.altKey || event.metaKey) return;
      const items = [...this.list.children];
      const place = items.indexOf(at);
      const go = (target) => {
        if (!target) return;
        items.forEach((one) => { one.tabIndex = one === target ? 0 : -1; });
        target.focus();
      };
      if (event.key === "ArrowDown") go(items[place + 1]);
      else if (event.key === "ArrowUp") go(items[place - 1]);
      else if (event.key === "Home") go(items[0]);
      else if (event.key === "End") go(items.at(-1));
      else if (event.key === "ArrowLeft") go(items.find((one) => one.version === at.parent));
      else if (event.key === "ArrowRight") go(items.find((one) => one.parent === at.version && one !== at));
      else if (event.key === "Enter" || event.key === " ") this.send("visit", { version: at.version });
      else return;
      event.preventDefault();
    });
  }

  // ---- what Python tells

  on_place({ version, cards, original }) {
    if (version !== this.version) {
      this.pop.close();
      this.cards.clear();
      this.desk.replaceChildren();
      this.version = version;
    }
    for (const data of cards) {
      const card = this.cards.get(data.index);
      if (card) card.grow(0, data);
      else {
        this.cards.set(data.index, new Card(this, version, data));
        this.desk.append(this.cards.get(data.index).element);
      }
    }
    this.desk.querySelectorAll(".jy-original, .jy-empty").forEach((old) => old.remove());
    if (original) {
      this.desk.append(element("article", { className: "jy-card jy-original", "aria-label": "原文" },
        element("header", {}, element("b", { textContent: "原文" }), ` · ${original.source}`),
        element("p", { className: "jy-text", textContent: original.text })));
    }
    if (!cards.length) {
      this.desk.append(element("p", { className: "jy-empty",
        textContent: "還沒有稿子。上面寫一段開頭，或者抽一段，按「寫」。" }));
    }
    this.showPins();
    this.showLooks();
    this.giveFocus();
  }

  on_grow({ version, cards }) {
    if (version !== this.version) return;
    const whole = cards.every((data) => this.cards.get(data.index)?.grow(data.at, data));
    if (!whole) this.send("hello");
    this.giveFocus();
  }

  // Whoever branched by keyboard goes on from there, unless they are elsewhere by now.
  giveFocus() {
    const card = this.cards.get(0);
    if (!this.wanted || this.wanted.from === this.version || !(this.wanted.place < card?.characters.length)) return;
    if (!document.activeElement || document.activeElement === document.body) {
      card.quiet = true;
      card.focus(this.wanted.place, { preventScroll: true });
    }
    this.wanted = null;
  }

  on_tree(tree) {
    this.tree = tree;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.version : null;
    const pins = new Set(tree.pins.map(([version]) => version));
    const children = new Map();
    for (const version of tree.versions) {
      if (!children.has(version.parent)) children.set(version.parent, []);
      children.get(version.parent).push(version);
    }
    const items = [];
    const add = (version, level) => {
      const selected = version.id === tree.current;
      const from = version.from ? `自第 ${version.from} 稿` : "";
      const item = element("li", { role: "treeitem", tabIndex: selected ? 0 : -1, "aria-level": level + 1,
        "aria-selected": selected, title: `${version.kind}${from}，${version.count} 稿，${version.made.replace("T", " ")}` },
      element("i", { textContent: `${version.id} ${version.kind}${pins.has(version.id) ? " ★" : ""}` }),
      version.label.replaceAll("\n", " ") || "……");
      item.style.setProperty("--level", Math.min(level, 9));
      Object.assign(item, { version: version.id, parent: version.parent });
      items.push(item);
      for (const child of children.get(version.id) ?? []) add(child, level + 1);
    };
    for (const version of children.get(0) ?? []) add(version, 0);
    this.list.replaceChildren(...items);
    this.nav.hidden = !items.length;
    if (items.length && !items.some((item) => item.tabIndex === 0)) items[0].tabIndex = 0;
    items.find((item) => item.version === focused)?.focus();
    const current = items.find((item) => item.version === tree.current);
    if (current) { // in sight, without moving the page
      const { offsetTop: top, offsetHeight: height } = current;
      const from = top - this.list.offsetTop;
      if (from < this.list.scrollTop) this.list.scrollTop = from;
      else if (from + height > this.list.scrollTop + this.list.clientHeight) this.list.scrollTop = from + height - this.list.clientHeight;
    }
    this.showPins();
  }

  on_busy({ on }) {
    this.root.classList.toggle("jy-busy", on);
    this.root.setAttribute("aria-busy", on);
    const writing = "正在寫……";
    if (on && !this.line.textContent) this.line.textContent = writing;
    if (!on && this.line.textContent === writing) this.line.textContent = "";
  }

  on_say({ text, error }) {
    this.line.textContent = text;
    this.line.classList.toggle("jy-bad", error);
  }

  on_copies({ version, index, spans }) {
    if (version === this.version) this.cards.get(index)?.setCopies(spans);
    this.showLooks();
  }

  on_view({ title, page }) {
    if (page === this.page) return;
    this.page = page;
    this.view.hidden = !page;
    this.viewTitle.textContent = title;
    // A page of our own making, in a frame of its own, so that its scripts and ours do not meet.
    this.viewFrame.replaceChildren(...(page ? [element("iframe", { title, srcdoc: page })] : []));
    if (page) this.view.scrollIntoView({ block: "nearest" });
  }

  on_file({ name, text }) {
    const type = TYPES[name.split(".").at(-1)] ?? "text/plain";
    this.file = element("a", { download: name, textContent: `下載 ${name}`,
      href: URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` })) });
    this.download?.remove();
    this.download = element("p", { className: "jy-line jy-file" }, this.file);
    this.line.after(this.download);
  }

  // ---- how it looks

  showPins() {
    const pins = new Set(this.tree.pins.map(([version, index]) => `${version}/${index}`));
    for (const card of this.cards.values()) card.setPinned(pins.has(`${card.version}/${card.index}`));
  }

  showLooks() {
    for (const [name, button] of this.toggles) {
      const on = Boolean(this.model.get(name));
      button.setAttribute("aria-pressed", on);
      this.root.classList.toggle(`jy-${name}`, on);
    }
    const copies = this.model.get("copies");
    for (const card of this.cards.values()) card.sources.hidden = !(copies && card.sources.childElementCount);
    const original = this.desk.querySelector(".jy-original");
    if (original) original.hidden = !this.model.get("original");
  }
}

export default {
  render({ model, el }) {
    const board = new Board(model, el);
    return () => board.close();
  },
};
