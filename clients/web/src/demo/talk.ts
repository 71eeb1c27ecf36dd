/** The dock under the portrait: the microphone and its mode. */
import type { AvatarSession, MicrophoneMode } from "../lib";
import { byId } from "./dom";
import { complaint } from "./messages";

const TOUCH = matchMedia("(hover: none)").matches;
const HINTS: Readonly<Record<MicrophoneMode, string>> = {
  push: TOUCH ? "Hold the button and speak." : "Hold the button, or the space bar, and speak.",
  open: "Press once and just speak; a pause ends your turn.",
};
const HEADPHONES = "Wear headphones: the portrait repeats your voice.";
/** A held-open microphone between two pushes is released after this long. */
const RELEASE_MS = 20_000;
/** The meter's range in dBFS. */
const METER_FLOOR_DB = -60;

export class TalkControls {
  readonly #button = byId("mic", HTMLButtonElement);
  readonly #label = byId("mic-label", HTMLElement);
  readonly #hint = byId("dock-hint", HTMLElement);
  #held = false;
  #ready = false;
  #releaseTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly session: AvatarSession,
    readonly onError: (message: string) => void,
  ) {
    const { microphone } = session;
    microphone.on("change", () => this.#render());
    microphone.on("level", (level) => {
      const share = Math.max(0, 1 - level / METER_FLOOR_DB);
      this.#button.style.setProperty("--level", share.toFixed(2));
    });
    this.#listenToButton();
    this.#listenToKeys();
    for (const radio of document.querySelectorAll<HTMLInputElement>('input[name="mode"]')) {
      radio.addEventListener("change", () => void this.#setMode(radio.value as MicrophoneMode));
    }
    this.#render();
  }

  setReady(ready: boolean): void {
    if (ready === this.#ready) return;
    this.#ready = ready;
    this.#button.disabled = !ready;
    if (!ready) this.session.microphone.endTurn();
  }

  async #setMode(mode: MicrophoneMode): Promise<void> {
    await this.session.microphone.setMode(mode);
    this.#render();
  }

  #listenToButton(): void {
    const button = this.#button;
    button.addEventListener("pointerdown", (event) => {
      if (this.session.microphone.mode !== "push" || event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      void this.#hold();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      button.addEventListener(name, () => this.#letGo());
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("click", () => {
      if (this.session.microphone.mode === "open") void this.#toggle();
    });
  }

  /** The space bar talks from anywhere but from a control that needs it. */
  #listenToKeys(): void {
    document.addEventListener("keydown", (event) => {
      if (event.code !== "Space" || this.session.microphone.mode !== "push") return;
      if (!this.#ownsSpace()) return;
      event.preventDefault();
      if (!event.repeat && this.#ready) void this.#hold();
    });
    document.addEventListener("keyup", (event) => {
      if (event.code === "Space" && this.#held) this.#letGo();
    });
    window.addEventListener("blur", () => this.#letGo());
  }

  #ownsSpace(): boolean {
    const focused = document.activeElement;
    return (
      focused === null ||
      focused === document.body ||
      focused === this.#button ||
      focused.id === "stage"
    );
  }

  async #hold(): Promise<void> {
    if (this.#held) return;
    this.#held = true;
    clearTimeout(this.#releaseTimer);
    await this.#attempt(() => this.session.microphone.press());
  }

  #letGo(): void {
    if (!this.#held) return;
    this.#held = false;
    const { microphone } = this.session;
    microphone.release();
    this.#releaseTimer = setTimeout(() => void microphone.close(), RELEASE_MS);
    this.#render();
  }

  async #toggle(): Promise<void> {
    const { microphone } = this.session;
    await this.#attempt(() => (microphone.active ? microphone.close() : microphone.open()));
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await this.session.unlock();
      await work();
    } catch (error) {
      this.#held = false;
      this.onError(complaint(error));
    }
    this.#render();
  }

  #render(): void {
    const { mode, active, talking } = this.session.microphone;
    const live = active && (mode === "open" || this.#held);
    const labels = {
      push: "Hold to talk",
      open: live ? "Close the microphone" : "Open the microphone",
    };
    this.#label.textContent = labels[mode];
    this.#button.setAttribute("aria-pressed", String(live));
    this.#button.classList.toggle("is-talking", talking);
    this.#hint.textContent = live ? HEADPHONES : HINTS[mode];
    if (!live) this.#button.style.setProperty("--level", "0");
  }
}
