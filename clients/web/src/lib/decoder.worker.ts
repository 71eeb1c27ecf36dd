/** Decodes H.264 (WebCodecs) or JPEG away from the page's own thread. */
import type { DecoderReply, DecoderRequest } from "./decoder";

interface WorkerScope {
  postMessage(message: DecoderReply, transfer: Transferable[]): void;
  onmessage: ((event: MessageEvent<DecoderRequest>) => void) | null;
}

const scope = self as unknown as WorkerScope;

let decoder: VideoDecoder | null = null;
let config: VideoDecoderConfig | null = null;
let needsKeyframe = true;
let generation = 0;

function fail(error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  scope.postMessage({ type: "failed", message }, []);
}

function openDecoder(codec: string): void {
  config = { codec, optimizeForLatency: true };
  decoder = new VideoDecoder({
    output: (image) =>
      scope.postMessage({ type: "frame", id: image.timestamp, generation, image }, [image]),
    error: fail,
  });
  decoder.configure(config);
  needsKeyframe = true;
}

function reset(): void {
  if (!decoder || !config || decoder.state === "closed") return;
  decoder.reset();
  decoder.configure(config);
  needsKeyframe = true;
}

function decodeH264(request: Extract<DecoderRequest, { type: "decode" }>): void {
  if (decoder?.state !== "configured") return;
  if (needsKeyframe && !request.key) {
    scope.postMessage({ type: "skipped", id: request.id, generation }, []);
    return;
  }
  needsKeyframe = false;
  const type = request.key ? "key" : "delta";
  decoder.decode(new EncodedVideoChunk({ type, timestamp: request.id, data: request.data }));
}

async function decodeJpeg(request: Extract<DecoderRequest, { type: "decode" }>): Promise<void> {
  const { id } = request;
  const started = generation;
  try {
    const image = await createImageBitmap(new Blob([request.data], { type: "image/jpeg" }));
    scope.postMessage({ type: "frame", id, generation: started, image }, [image]);
  } catch {
    // Every picture stands alone: one that is broken is left out.
    scope.postMessage({ type: "skipped", id, generation: started }, []);
  }
}

scope.onmessage = ({ data: request }) => {
  try {
    if (request.type === "configure") {
      if (decoder && decoder.state !== "closed") decoder.close();
      decoder = null;
      generation = request.generation;
      if (request.video === "h264") openDecoder(request.codec);
    } else if (request.type === "reset") {
      generation = request.generation;
      reset();
    } else if (decoder) {
      decodeH264(request);
    } else {
      void decodeJpeg(request);
    }
  } catch (error) {
    fail(error);
  }
};
