/** The portrait and everything drawn around it: name, state, waiting, trouble, ambient light. */
import type { AvatarSession, AvatarStatus } from "../lib";
import { setAccessKey } from "./access";
import type { Avatar } from "./api";
import { byId } from "./dom";
import { type Advice, loadingText, queueText, statusText } from "./messages";

const LEVEL_EVERY_FRAMES = 3;

export class Stage {
  readonly canvas = byId("portrait-live", HTMLCanvasElement);
  readonly #portrait = byId("portrait", HTMLElement);
  readonly #still = byId("portrait-still", HTMLImageElement);
  readonly #ambient = byId("ambient", HTMLCanvasElement);
  readonly #trouble = byId("trouble", HTMLFormElement);
  readonly #waiting = byId("loading", HTMLElement);
  readonly #bar = byId("loading-bar", HTMLProgressElement);
  readonly #key = byId("trouble-key", HTMLInputElement);
  readonly #action = byId("trouble-action", HTMLButtonElement);
  #retry: () => void = () => {};

  constructor() {
    this.#trouble.addEventListener("submit", (event) => {
      event.preventDefault();
      const key = this.#key.value.trim();
      if (!this.#key.hidden && key) setAccessKey(key);
      this.#key.value = "";
      this.#retry();
    });
    this.#still.addEventListener("load", () => this.#light());
  }

  attach(session: AvatarSession): void {
    const bars = byId("state-bars", HTMLElement);
    let shown = 0;
    session.on("shown", ({ speech }) => {
      shown += 1;
      if (speech && shown % LEVEL_EVERY_FRAMES === 0) {
        bars.style.setProperty("--level", session.level.toFixed(1));
      }
      if (this.#portrait.classList.contains("is-live")) return;
      this.#portrait.classList.add("is-live");
      this.#waiting.hidden = true;
    });
  }

  showAvatar(avatar: Avatar): void {
    this.#portrait.classList.remove("is-live");
    this.#still.src = avatar.imageUrl;
    this.#still.hidden = false;
    byId("stage-name", HTMLElement).textContent = avatar.name;
    this.canvas.setAttribute("aria-label", `${avatar.name}, live portrait`);
  }

  showStatus(status: AvatarStatus): void {
    const live = status.state === "live";
    const mood = status.state === "live" ? status.activity : status.state;
    const text = statusText(status);
    byId("state", HTMLElement).dataset.state = mood;
    byId("state-text", HTMLElement).textContent = text;
    this.#portrait.dataset.state = mood;
    byId("connection", HTMLElement).dataset.state = mood;
    byId("connection-text", HTMLElement).textContent = live ? "Connected" : text;
    if (live) this.clearTrouble();
    const away = ["reconnecting", "expired", "refused"].includes(status.state);
    this.#portrait.classList.toggle("is-away", away);
    if (status.state === "queued") {
      this.#showWaiting(queueText(status.position, status.etaS), null);
    } else if (status.state === "loading") {
      this.#showWaiting(loadingText(status.stage), status.progress);
    } else {
      this.#waiting.hidden = true;
    }
  }

  /** Nothing is connected, for a reason outside the session. */
  showStopped(text: string): void {
    for (const id of ["state", "connection"]) byId(id, HTMLElement).dataset.state = "refused";
    byId("state-text", HTMLElement).textContent = text;
    byId("connection-text", HTMLElement).textContent = text;
    this.#waiting.hidden = true;
  }

  showTrouble(advice: Advice, retry: () => void = () => {}): void {
    byId("trouble-title", HTMLElement).textContent = advice.title;
    byId("trouble-remedy", HTMLElement).textContent = advice.remedy;
    byId("trouble-key-row", HTMLElement).hidden = !advice.key;
    this.#key.hidden = !advice.key;
    this.#key.required = advice.key === true;
    this.#action.hidden = !advice.action;
    this.#action.textContent = advice.key ? "Use this key" : (advice.action ?? "");
    this.#retry = retry;
    this.#waiting.hidden = true;
    this.#trouble.hidden = false;
  }

  clearTrouble(): void {
    this.#trouble.hidden = true;
  }

  #showWaiting(text: string, progress: number | null): void {
    this.clearTrouble();
    const label = byId("loading-text", HTMLElement);
    if (label.textContent !== text) label.textContent = text;
    if (progress === null) this.#bar.removeAttribute("value");
    else this.#bar.value = progress;
    this.#waiting.hidden = progress !== null && progress >= 1;
  }

  /**
   * The backdrop glows in the portrait's own colours. It is blurred once, on a canvas of a few
   * pixels: a CSS blur of the whole stage would cost every frame on machines without a GPU.
   */
  #light(): void {
    const { width, height } = this.#ambient;
    const context = this.#ambient.getContext("2d");
    if (!context) return;
    context.filter = "blur(3px) saturate(1.3) brightness(0.42)";
    context.drawImage(this.#still, -4, -4, width + 8, height + 8);
  }
}
