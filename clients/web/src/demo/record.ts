/** The record button: films the portrait, then offers the file. */
import type { AvatarSession } from "../lib";
import type { Avatar } from "./api";
import { clock } from "./clock";
import { byId } from "./dom";
import { complaint } from "./messages";
import type { Toasts } from "./toasts";

const TICK_MS = 500;
const WATERMARK = "AI-generated";

export class RecordButton {
  readonly #button = byId("record", HTMLButtonElement);
  readonly #text = byId("record-text", HTMLElement);
  readonly #label = byId("record-label", HTMLElement);
  readonly #mark = byId("record-mark", HTMLInputElement);
  #busy = false;
  #saving = false;

  constructor(
    readonly session: AvatarSession,
    readonly toasts: Toasts,
    readonly avatar: () => Avatar | null,
  ) {
    this.#button.addEventListener("click", () => void this.#toggle());
    session.recorder.on("failed", (error) => this.toasts.show("error", complaint(error)));
    setInterval(() => this.#render(), TICK_MS);
  }

  setReady(ready: boolean): void {
    // A running recording can be stopped whatever the connection does.
    this.#button.disabled = !ready && !this.session.recorder.active;
  }

  async #toggle(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      if (this.session.recorder.active) await this.#finish();
      else await this.#begin();
    } catch (error) {
      this.toasts.show("error", complaint(error));
    } finally {
      this.#busy = false;
      this.#render();
    }
  }

  async #begin(): Promise<void> {
    await this.session.unlock();
    const watermark = this.#mark.checked ? WATERMARK : "";
    const consent = this.avatar()?.consent ?? null;
    await this.session.recorder.start({ watermark, consent });
  }

  async #finish(): Promise<void> {
    const stopped = this.session.recorder.stop();
    // Encoding what waits, and putting the file together, may take a moment.
    this.#saving = true;
    this.#render();
    const { blob, extension, seconds, leftOut } = await stopped.finally(() => {
      this.#saving = false;
    });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = fileName(this.avatar()?.name ?? "", extension);
    link.textContent = "Save it again";
    link.click();
    const megabytes = (blob.size / 1e6).toFixed(1);
    const lost = leftOut > 0 ? `; ${leftOut} pictures are missing, this device is too slow` : "";
    const text = `Recorded ${seconds.toFixed(0)} seconds, ${megabytes} MB${lost}. `;
    this.toasts.show("info", text, link);
  }

  #render(): void {
    const { active, seconds } = this.session.recorder;
    this.#button.setAttribute("aria-pressed", String(active));
    const text = this.#saving ? "Saving" : active ? clock(seconds) : "Record";
    if (this.#text.textContent !== text) this.#text.textContent = text;
    const label = this.#saving ? "the video" : active ? "Stop recording" : "a video";
    if (this.#label.textContent !== label) this.#label.textContent = label;
  }
}

function fileName(avatar: string, extension: string): string {
  const name = avatar
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .replace(/[^A-Za-z0-9]+/g, "-")
    .replace(/^-|-$/g, "")
    .toLowerCase();
  return `visavis-${name || "portrait"}.${extension}`;
}
