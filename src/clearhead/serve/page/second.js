// The second text, of a model that reads one and writes another: its field, its languages, and which text reads which.
// A classifier's decoder reads the first text again: nothing can be given, and the field is not shown.

const KINDS = {
  encoder: "the text reads itself",
  decoder: "what is written reads itself",
  cross: "what is written reads the text",
};
const AGAIN = {
  encoder: "the text reads itself",
  decoder: "read again, it reads itself",
  cross: "read again, it reads the first reading",
};

/** The second text that another question has to name: none where the model writes it itself, or reads the first again. */
export const targetOf = (look) => (look.written || !look.takes_target ? "" : look.target);

const LANGUAGES = { source_language: "from", target_language: "into" }; // as the server and as the address call them

/** As many lines as the text of a field needs, up to a handful. */
export function grow(box) {
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight + 2, 112)}px`;
}

export class Second {
  /** `on.again()`: a language was chosen; `on.choose(kind)`: another attention is to be shown. */
  constructor(element, kinds, on) {
    Object.assign(this, { element, kinds, on, target: element.querySelector("textarea") });
    for (const select of element.querySelectorAll("select")) select.addEventListener("change", () => on.again());
    kinds.addEventListener("click", (event) => event.target.dataset.kind && on.choose(event.target.dataset.kind));
    kinds.addEventListener("keydown", (event) => this.#move(event));
  }

  /** What a question says of the target and of languages: as the address wishes, else as the fields have it. */
  said(wish, look) {
    const shown = !this.element.hidden;
    const own = shown && !(look?.written && this.target.value === look.target); // not the model's, of the text before
    const said = { target: wish.target ?? (own ? this.target.value : "") };
    for (const [name, short] of Object.entries(LANGUAGES)) said[name] = wish[short] ?? (shown ? this.#select(short).value : "");
    return Object.fromEntries(Object.entries(said).filter(([, value]) => value));
  }

  show(look, kind) {
    this.element.hidden = !look.takes_target;
    this.target.value = look.target ?? "";
    grow(this.target);
    const known = { source_language: look.source_languages ?? [], target_language: look.languages ?? [] };
    for (const [name, short] of Object.entries(LANGUAGES)) {
      const select = this.#select(short);
      select.replaceChildren(...["", ...known[name]].map((each) => new Option(each || "as its files say", each)));
      select.value = look[name] ?? "";
      select.parentElement.hidden = !known[name].length;
    }
    const kinds = Object.keys(look.kinds);
    this.kinds.hidden = kinds.length < 2;
    const words = look.takes_target === false ? AGAIN : KINDS;
    this.kinds.replaceChildren(...kinds.map((each) => button(each, words[each], each === kind)));
  }

  hide() {
    this.element.hidden = true;
  }

  /** The chosen attention has the keyboard. */
  focus() {
    this.kinds.querySelector("[aria-checked=true]")?.focus();
  }

  #select(short) {
    return this.element.querySelector(`#${short} select`);
  }

  #move(event) {
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const all = [...this.kinds.children];
    const at = all.indexOf(event.target) + by;
    this.on.choose(all[(at + all.length) % all.length].dataset.kind);
  }
}

function button(kind, textContent, chosen) {
  const element = Object.assign(document.createElement("button"), { type: "button", textContent });
  element.tabIndex = chosen ? 0 : -1;
  element.setAttribute("role", "radio");
  element.setAttribute("aria-checked", String(chosen));
  element.dataset.kind = kind;
  return element;
}
