/**
 * Streaming resampler: a Hann-windowed sinc filter bank, one filter for each fractional position
 * that a rational ratio of rates can have. Pieces of any length give the same samples as the whole.
 */
export class Resampler {
  /** Input samples advanced by one cycle of `#phases.length` output samples. */
  readonly #advance: number;
  readonly #phases: Float32Array[];
  readonly #half: number;
  #tail: Float32Array;
  #phase = 0;
  /** Index in `#tail` of the input sample at or before the next output sample. */
  #base: number;

  /** Rates are whole numbers in Hz; `zeroCrossings` sets the length of the filter on either side. */
  constructor(
    readonly inputRate: number,
    readonly outputRate: number,
    zeroCrossings = 12,
  ) {
    if (
      !Number.isInteger(inputRate) ||
      !Number.isInteger(outputRate) ||
      inputRate * outputRate <= 0
    ) {
      throw new RangeError(
        `rates must be positive whole numbers in Hz, got ${inputRate}, ${outputRate}`,
      );
    }
    const divisor = greatestCommonDivisor(inputRate, outputRate);
    this.#advance = inputRate / divisor;
    const cutoff = Math.min(1, outputRate / inputRate) * 0.95;
    this.#half = Math.ceil(zeroCrossings / cutoff);
    const phaseCount = outputRate / divisor;
    this.#phases = Array.from({ length: phaseCount }, (_, phase) =>
      filterAt(((phase * this.#advance) % phaseCount) / phaseCount, cutoff, this.#half),
    );
    this.#base = this.#half - 1;
    this.#tail = new Float32Array(this.#base);
  }

  process(input: Float32Array): Float32Array {
    if (this.inputRate === this.outputRate) return input.slice();
    const samples = new Float32Array(this.#tail.length + input.length);
    samples.set(this.#tail);
    samples.set(input, this.#tail.length);
    const output = new Float32Array(
      Math.ceil((samples.length * this.outputRate) / this.inputRate) + 1,
    );
    let written = 0;
    while (this.#base + this.#half < samples.length) {
      output[written] = this.#filter(samples);
      written += 1;
      this.#step();
    }
    const keepFrom = Math.min(this.#base - this.#half + 1, samples.length);
    this.#tail = samples.slice(keepFrom);
    this.#base -= keepFrom;
    return output.slice(0, written);
  }

  #filter(samples: Float32Array): number {
    const taps = this.#phases[this.#phase] as Float32Array;
    const first = this.#base - this.#half + 1;
    let sum = 0;
    for (let i = 0; i < taps.length; i++)
      sum += (taps[i] as number) * (samples[first + i] as number);
    return sum;
  }

  #step(): void {
    const count = this.#phases.length;
    const before = Math.floor((this.#phase * this.#advance) / count);
    const after = Math.floor(((this.#phase + 1) * this.#advance) / count);
    this.#base += after - before;
    this.#phase = (this.#phase + 1) % count;
  }
}

/** Taps for an output sample `fraction` of a sample after the base sample; they sum to one. */
function filterAt(fraction: number, cutoff: number, half: number): Float32Array {
  const taps = new Float32Array(2 * half);
  let sum = 0;
  for (let i = 0; i < taps.length; i++) {
    const distance = i - half + 1 - fraction;
    const x = Math.PI * distance * cutoff;
    const sinc = Math.abs(x) < 1e-9 ? 1 : Math.sin(x) / x;
    const tap = sinc * (0.5 + 0.5 * Math.cos((Math.PI * distance) / half));
    taps[i] = tap;
    sum += tap;
  }
  return taps.map((tap) => tap / sum);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
