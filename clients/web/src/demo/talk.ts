/** The dock under the portrait: microphone, its mode, and the stop button. */
import {
  type AvatarClient,
  Microphone,
  MicrophoneError,
  type MicrophoneMode,
  UtteranceDetector,
} from "../lib";
import { byId } from "./dom";
import { microphoneAdvice } from "./messages";

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
  readonly #microphone: Microphone;
  readonly #detector: UtteranceDetector;
  #held = false;
  #starting = false;
  #ready = false;
  #releaseTimer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly client: AvatarClient,
    readonly onError: (message: string) => void,
    readonly beforeTalk: () => void,
  ) {
    this.#detector = new UtteranceDetector(
      client.sampleRate,
      {
        begin: () => this.#begin(),
        audio: (pcm) => client.sendAudio(pcm),
        end: () => client.endUtterance(),
      },
      "push",
    );
    this.#microphone = new Microphone(client.sampleRate, (pcm) => this.#onBlock(pcm));
    this.#listenToButton();
    this.#listenToKeys();
    for (const radio of document.querySelectorAll<HTMLInputElement>('input[name="mode"]')) {
      radio.addEventListener("change", () => this.#setMode(radio.value as MicrophoneMode));
    }
    this.#render();
  }

  setReady(ready: boolean): void {
    this.#ready = ready;
    this.#button.disabled = !ready;
    if (!ready) this.#detector.end();
  }

  setSpeaking(speaking: boolean): void {
    this.#detector.loudspeaking = speaking;
  }

  /** Ends what the microphone is saying; an open microphone stays open. */
  endTurn(): void {
    this.#detector.end();
    this.#render();
  }

  #setMode(mode: MicrophoneMode): void {
    void this.#close();
    this.#detector.mode = mode;
    this.#render();
  }

  #begin(): void {
    this.beforeTalk();
    this.client.beginUtterance();
    this.#render();
  }

  #listenToButton(): void {
    const button = this.#button;
    button.addEventListener("pointerdown", (event) => {
      if (this.#detector.mode !== "push" || event.button !== 0) return;
      button.setPointerCapture(event.pointerId);
      void this.#hold();
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      button.addEventListener(name, () => this.#letGo());
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("click", () => {
      if (this.#detector.mode === "open") void this.#toggle();
    });
  }

  /** The space bar talks from anywhere but from a control that needs it. */
  #listenToKeys(): void {
    document.addEventListener("keydown", (event) => {
      if (event.code !== "Space" || this.#detector.mode !== "push" || !this.#ownsSpace()) return;
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
    // The first press may have to wait for the permission prompt; by then the finger is gone.
    if ((await this.#open()) && this.#held) this.#detector.begin();
    this.#render();
  }

  #letGo(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#detector.end();
    this.#releaseTimer = setTimeout(() => void this.#close(), RELEASE_MS);
    this.#render();
  }

  async #toggle(): Promise<void> {
    if (this.#microphone.active) await this.#close();
    else if (await this.#open()) this.client.setListening(true);
    this.#render();
  }

  async #open(): Promise<boolean> {
    if (this.#microphone.active) return true;
    if (this.#starting) return false;
    this.#starting = true;
    try {
      await this.client.unlock();
      await this.#microphone.start();
      return true;
    } catch (error) {
      this.#held = false;
      const known = error instanceof MicrophoneError;
      this.onError(known ? microphoneAdvice(error.problem) : String(error));
      return false;
    } finally {
      this.#starting = false;
    }
  }

  async #close(): Promise<void> {
    this.#held = false;
    this.#detector.end();
    if (this.#detector.mode === "open") this.client.setListening(false);
    await this.#microphone.stop();
    this.#render();
  }

  #onBlock(pcm: Int16Array): void {
    const level = this.#detector.push(pcm);
    const share = Math.max(0, 1 - level / METER_FLOOR_DB);
    this.#button.style.setProperty("--level", share.toFixed(2));
  }

  #render(): void {
    const { mode, talking } = this.#detector;
    const live = this.#microphone.active && (mode === "open" || this.#held);
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
