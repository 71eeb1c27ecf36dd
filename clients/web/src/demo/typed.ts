/** Typed text as the voice: a box, a choice of speaker, a button. */
import { byId, element } from "./dom";
import { complaint } from "./messages";
import { MAX_CHARACTERS, plain, Synthesis, VOICES } from "./synthesis";

export interface TypedHandlers {
  speak(wav: ArrayBuffer): void;
  failed(message: string): void;
}

export class TypedSpeech {
  readonly #form = byId("typed", HTMLFormElement);
  readonly #text = byId("typed-text", HTMLTextAreaElement);
  readonly #voice = byId("typed-voice", HTMLSelectElement);
  readonly #button = byId("typed-speak", HTMLButtonElement);
  readonly #note = byId("typed-note", HTMLElement);
  readonly #synthesis = new Synthesis();
  #ready = false;
  #working = false;

  constructor(readonly handlers: TypedHandlers) {
    this.#text.maxLength = MAX_CHARACTERS;
    this.#voice.append(...VOICES.map(({ id, name }) => element("option", { value: id }, name)));
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#speak();
    });
    this.#text.addEventListener("input", () => this.#render());
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#render();
  }

  setReady(ready: boolean): void {
    this.#ready = ready;
    this.#render();
  }

  async #speak(): Promise<void> {
    const text = plain(this.#text.value);
    if (this.#working || !this.#ready || !text) return;
    this.#working = true;
    this.#render("Thinking of how to say it");
    try {
      const wav = await this.#synthesis.speak(text, this.#voice.value, (share) =>
        this.#render(`Loading the voice, ${Math.round(share * 100)} %`),
      );
      this.handlers.speak(wav);
    } catch (error) {
      this.handlers.failed(complaint(error));
    } finally {
      this.#working = false;
      this.#render();
    }
  }

  #render(note = "English. The voice is made in this browser; its first use loads 21 MB."): void {
    this.#button.disabled = this.#working || !this.#ready || !plain(this.#text.value);
    this.#form.setAttribute("aria-busy", String(this.#working));
    this.#note.textContent = note;
  }
}
