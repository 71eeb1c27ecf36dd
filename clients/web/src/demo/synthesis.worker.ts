/** Text to speech away from the page's own thread: Flite, compiled to WebAssembly. */
import { runProgram } from "./wasi";

export interface SynthesisRequest {
  id: number;
  wasmUrl: string;
  voice: string;
  text: string;
}

export type SynthesisReply =
  | { id: number; type: "progress"; share: number }
  | { id: number; type: "done"; wav: ArrayBuffer }
  | { id: number; type: "failed"; message: string };

interface WorkerScope {
  postMessage(message: SynthesisReply, transfer?: Transferable[]): void;
  onmessage: ((event: MessageEvent<SynthesisRequest>) => void) | null;
}

const scope = self as unknown as WorkerScope;
const OUTPUT = "/speech.wav";

let module: WebAssembly.Module | null = null;

async function load(url: string, progress: (share: number) => void): Promise<WebAssembly.Module> {
  const response = await fetch(url);
  if (!response.ok || !response.body) {
    throw new Error(`the voice could not be loaded (${response.status})`);
  }
  const total = Number(response.headers.get("content-length")) || 0;
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    loaded += value.length;
    if (total > 0) progress(Math.min(1, loaded / total));
  }
  return WebAssembly.compile(await new Blob(pieces).arrayBuffer());
}

async function synthesise({ id, wasmUrl, voice, text }: SynthesisRequest): Promise<void> {
  module ??= await load(wasmUrl, (share) => scope.postMessage({ id, type: "progress", share }));
  const files = await runProgram(module, ["flite", "-voice", voice, "-t", text, "-o", OUTPUT]);
  const wav = files.get(OUTPUT.slice(1)) ?? files.get(OUTPUT);
  if (!wav) throw new Error("the synthesiser wrote nothing");
  scope.postMessage({ id, type: "done", wav: wav.buffer }, [wav.buffer]);
}

scope.onmessage = ({ data: request }) => {
  synthesise(request).catch((error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    scope.postMessage({ id: request.id, type: "failed", message });
  });
};
