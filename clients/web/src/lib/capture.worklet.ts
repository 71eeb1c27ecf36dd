/** Runs on the audio thread: microphone floats in, PCM16 blocks at the session's rate out. */
import { floatToPcm } from "./pcm";
import { Resampler } from "./resampler";

declare const sampleRate: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(
  name: string,
  processor: new (options: { processorOptions: { sampleRate: number } }) => AudioWorkletProcessor,
): void;

const BLOCK_S = 0.02;

class CaptureProcessor extends AudioWorkletProcessor {
  readonly #resampler: Resampler;
  readonly #block: Float32Array;
  #filled = 0;

  constructor(options: { processorOptions: { sampleRate: number } }) {
    super();
    const outputRate = options.processorOptions.sampleRate;
    this.#resampler = new Resampler(sampleRate, outputRate);
    this.#block = new Float32Array(Math.round(outputRate * BLOCK_S));
  }

  process(inputs: Float32Array[][]): boolean {
    const channel = inputs[0]?.[0];
    if (!channel) return true;
    for (const sample of this.#resampler.process(channel)) {
      this.#block[this.#filled] = sample;
      this.#filled += 1;
      if (this.#filled === this.#block.length) this.#post();
    }
    return true;
  }

  #post(): void {
    const pcm = floatToPcm(this.#block);
    this.port.postMessage(pcm, [pcm.buffer]);
    this.#filled = 0;
  }
}

registerProcessor("visavis-capture", CaptureProcessor);
