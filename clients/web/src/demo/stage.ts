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

const LEVEL_EVERY_FRAMES = 3;

export class Stage {
  readonly canvas = byId("portrait-live", HTMLCanvasElement);
  readonly #portrait = byId("portrait", HTMLElement);
  readonly #still = byId("portrait-still", HTMLImageElement);
  readonly #ambient = byId("ambient", HTMLCanvasElement);
  readonly #trouble = byId("trouble", HTMLElement);
  readonly #loading = byId("loading", HTMLElement);
  readonly #action = byId("trouble-action", HTMLButtonElement);
  #retry: () => void = () => {};

  constructor() {
    this.#action.addEventListener("click", () => this.#retry());
    this.#still.addEventListener("load", () => this.#light());
  }

  attach(client: AvatarClient): void {
    const bars = byId("state-bars", HTMLElement);
    let shown = 0;
    client.on("shown", () => {
      shown += 1;
      if (shown % LEVEL_EVERY_FRAMES === 0 && client.state === "speaking") {
        bars.style.setProperty("--level", client.player.audio.level().toFixed(1));
      }
      if (this.#portrait.classList.contains("is-live")) return;
      this.#portrait.classList.add("is-live");
      this.#loading.hidden = true;
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
