/** Before a photo leaves this computer: whose face is it, and does that person agree? */
import { byId } from "./dom";

export class ConsentDialog {
  readonly #dialog = byId("consent", HTMLDialogElement);
  readonly #picture = byId("consent-picture", HTMLImageElement);
  readonly #agree = byId("consent-agree", HTMLInputElement);
  readonly #send = byId("consent-send", HTMLButtonElement);
  #answer: ((agreed: boolean) => void) | null = null;

  constructor() {
    this.#agree.addEventListener("change", () => {
      this.#send.disabled = !this.#agree.checked;
    });
    this.#dialog.addEventListener("close", () => {
      URL.revokeObjectURL(this.#picture.src);
      this.#answer?.(this.#dialog.returnValue === "send" && this.#agree.checked);
      this.#answer = null;
    });
    byId("consent-cancel", HTMLButtonElement).addEventListener("click", () =>
      this.#dialog.close("cancel"),
    );
  }

  /** Resolves to whether the photo may be sent. */
  ask(photo: File): Promise<boolean> {
    if (this.#dialog.open) return Promise.resolve(false);
    this.#picture.src = URL.createObjectURL(photo);
    this.#agree.checked = false;
    this.#send.disabled = true;
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
    return new Promise((resolve) => {
      this.#answer = resolve;
    });
  }
}
