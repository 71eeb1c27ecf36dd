/** The portrait and everything drawn around it: name, state, loading, trouble, ambient light. */
import type { AvatarClient, AvatarState } from "../lib";
import type { Avatar } from "./api";
import { byId } from "./dom";
import type { Advice } from "./messages";

const STATE_TEXT: Readonly<Record<AvatarState, string>> = {
  connecting: "Connecting",
  loading: "Loading",
  idle: "Ready",
  listening: "Listening",
  speaking: "Speaking",
  reconnecting: "Reconnecting",
  error: "Stopped",
};

const AMBIENT_MS = 160;

export class Stage {
  readonly canvas = byId("portrait-live", HTMLCanvasElement);
  readonly #portrait = byId("portrait", HTMLElement);
  readonly #still = byId("portrait-still", HTMLImageElement);
  readonly #ambient = byId("ambient", HTMLCanvasElement);
  readonly #trouble = byId("trouble", HTMLElement);
  readonly #loading = byId("loading", HTMLElement);
  readonly #action = byId("trouble-action", HTMLButtonElement);
  readonly #reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  #retry: () => void = () => {};
  #lastAmbientMs = 0;

  constructor() {
    this.#action.addEventListener("click", () => this.#retry());
    this.#still.addEventListener("load", () => this.#lightFrom(this.#still));
  }

  attach(client: AvatarClient): void {
    client.on("shown", () => {
      this.#portrait.classList.add("is-live");
      this.#loading.hidden = true;
      const nowMs = performance.now();
      if (nowMs - this.#lastAmbientMs < AMBIENT_MS) return;
      this.#lastAmbientMs = nowMs;
      this.#lightFrom(this.canvas);
      const level = this.#reducedMotion.matches ? 0 : client.player.audio.level();
      this.#portrait.style.setProperty("--level", level.toFixed(2));
    });
    client.on("loading", ({ stage, progress }) => this.#showLoading(stage, progress));
  }

  showAvatar(avatar: Avatar): void {
    this.#portrait.classList.remove("is-live");
    this.#still.src = avatar.imageUrl;
    this.#still.hidden = false;
    byId("stage-name", HTMLElement).textContent = avatar.name;
    this.canvas.setAttribute("aria-label", `${avatar.name}, live portrait`);
  }

  showState(state: AvatarState): void {
    byId("state", HTMLElement).dataset.state = state;
    byId("state-text", HTMLElement).textContent = STATE_TEXT[state];
    this.#portrait.dataset.state = state;
    const connected = state === "idle" || state === "listening" || state === "speaking";
    byId("connection", HTMLElement).dataset.state = state;
    byId("connection-text", HTMLElement).textContent = connected ? "Connected" : STATE_TEXT[state];
    if (connected) this.clearTrouble();
    else this.#portrait.classList.toggle("is-away", state === "reconnecting" || state === "error");
    if (connected) this.#portrait.classList.remove("is-away");
    if (connected || state === "error" || state === "reconnecting") this.#loading.hidden = true;
  }

  showTrouble(advice: Advice, retry: () => void = () => {}): void {
    byId("trouble-title", HTMLElement).textContent = advice.title;
    byId("trouble-remedy", HTMLElement).textContent = advice.remedy;
    this.#action.hidden = !advice.action;
    this.#action.textContent = advice.action ?? "";
    this.#retry = retry;
    this.#loading.hidden = true;
    this.#trouble.hidden = false;
  }

  clearTrouble(): void {
    this.#trouble.hidden = true;
  }

  #showLoading(stage: string, progress: number): void {
    const words = stage.replaceAll("_", " ");
    byId("loading-text", HTMLElement).textContent =
      words.charAt(0).toUpperCase() + words.slice(1) || "Preparing the portrait";
    byId("loading-bar", HTMLProgressElement).value = progress;
    this.#loading.hidden = progress >= 1;
  }

  /** The backdrop glows in the portrait's own colours: a tiny copy, blurred by the style sheet. */
  #lightFrom(source: CanvasImageSource): void {
    const context = this.#ambient.getContext("2d");
    context?.drawImage(source, 0, 0, this.#ambient.width, this.#ambient.height);
  }
}
