/** The page's side of the decoder worker: credit for a bounded number of frames in its hands. */

/** What this client can show. */
export type PictureFormat = "h264" | "jpeg";

export type DecoderRequest =
  | { type: "configure"; generation: number; video: PictureFormat; codec: string }
  | { type: "reset"; generation: number }
  | { type: "decode"; id: number; key: boolean; data: Uint8Array<ArrayBuffer> };

export type DecodedImage = VideoFrame | ImageBitmap;

export type DecoderReply =
  | { type: "frame"; id: number; generation: number; image: DecodedImage }
  | { type: "skipped"; id: number; generation: number }
  | { type: "failed"; message: string };

export interface DecoderHandlers {
  frame(id: number, image: DecodedImage): void;
  /** The frame could not be decoded, for instance a delta without its keyframe. */
  skipped(id: number): void;
  failed(message: string): void;
}

/** Baseline profile, level 3.1: what a server that names no codec string most likely sends. */
export const DEFAULT_H264_CODEC = "avc1.42E01F";

export async function supportsH264(codec = DEFAULT_H264_CODEC): Promise<boolean> {
  if (typeof VideoDecoder === "undefined") return false;
  try {
    return (await VideoDecoder.isConfigSupported({ codec })).supported === true;
  } catch {
    return false;
  }
}

export class Decoder {
  readonly #worker: Worker;
  #generation = 0;
  #inFlight = 0;

  constructor(readonly handlers: DecoderHandlers) {
    this.#worker = new Worker(new URL("./decoder.worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<DecoderReply>) => this.#onReply(data);
    this.#worker.onerror = (event) => handlers.failed(event.message || "decoder worker failed");
  }

  /** Frames that were sent to the worker and have not come back. */
  get inFlight(): number {
    return this.#inFlight;
  }

  configure(video: PictureFormat, codec: string = DEFAULT_H264_CODEC): void {
    this.#renew();
    this.#send({ type: "configure", generation: this.#generation, video, codec });
  }

  /** Drops what is being decoded; the next frame must be a keyframe. */
  reset(): void {
    this.#renew();
    this.#send({ type: "reset", generation: this.#generation });
  }

  decode(id: number, key: boolean, data: Uint8Array<ArrayBuffer>): void {
    this.#inFlight += 1;
    this.#send({ type: "decode", id, key, data });
  }

  close(): void {
    this.#worker.terminate();
  }

  #renew(): void {
    this.#generation += 1;
    this.#inFlight = 0;
  }

  #send(request: DecoderRequest): void {
    this.#worker.postMessage(request);
  }

  #onReply(reply: DecoderReply): void {
    if (reply.type === "failed") {
      this.handlers.failed(reply.message);
      return;
    }
    if (reply.generation !== this.#generation) {
      if (reply.type === "frame") reply.image.close();
      return;
    }
    this.#inFlight -= 1;
    if (reply.type === "frame") this.handlers.frame(reply.id, reply.image);
    else this.handlers.skipped(reply.id);
  }
}
