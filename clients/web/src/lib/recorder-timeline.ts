/**
 * The timeline of a recording: frame times that only grow, and sound without holes or overlaps. A
 * live session pauses, resumes and is interrupted; a file has one steady clock. Pure arithmetic.
 */

/** Two frames of a file are at least this far apart, in seconds. */
const MIN_STEP_S = 0.001;
/** Sound within this of its place is joined to what came before it. */
const TOLERANCE_S = 0.005;

export class FrameTimes {
  #startS: number | null = null;
  #lastS = Number.NEGATIVE_INFINITY;

  /** Seconds since the first frame, for a frame that was due at `dueS`. */
  place(dueS: number): number {
    this.#startS ??= dueS;
    const atS = Math.max(dueS - this.#startS, this.#lastS + MIN_STEP_S, 0);
    this.#lastS = atS;
    return atS;
  }
}

export class ContinuousSound {
  #written = 0;

  /** `sampleRate` in Hz. */
  constructor(readonly sampleRate: number) {}

  /** Seconds of sound so far. */
  get endS(): number {
    return this.#written / this.sampleRate;
  }

  /**
   * What to append so that `samples` sound at `atS`: silence before them where there is a hole,
   * fewer of them where they overlap what is there.
   */
  append(atS: number, samples: Float32Array): Float32Array<ArrayBuffer> {
    const gap = Math.round(atS * this.sampleRate) - this.#written;
    const tolerance = TOLERANCE_S * this.sampleRate;
    const silence = gap > tolerance ? gap : 0;
    const overlap = gap < -tolerance ? Math.min(-gap, samples.length) : 0;
    const out = new Float32Array(silence + samples.length - overlap);
    out.set(samples.subarray(overlap), silence);
    this.#written += out.length;
    return out;
  }
}
