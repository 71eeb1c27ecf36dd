/** What playback measured: counters, and windows of samples for percentiles and graphs. */

/** The last `capacity` numbers. */
export class Window {
  readonly values: number[] = [];

  constructor(readonly capacity: number) {}

  push(value: number): void {
    this.values.push(value);
    if (this.values.length > this.capacity) this.values.shift();
  }

  /** Nearest-rank percentile, `share` in 0..1; null when empty. */
  percentile(share: number): number | null {
    if (this.values.length === 0) return null;
    const sorted = [...this.values].sort((a, b) => a - b);
    const rank = Math.ceil(share * sorted.length) - 1;
    return sorted[Math.max(0, Math.min(sorted.length - 1, rank))] ?? null;
  }

  clear(): void {
    this.values.length = 0;
  }
}

export class PlaybackMetrics {
  framesReceived = 0;
  framesShown = 0;
  /** Too late, or not decodable. */
  framesDropped = 0;
  /** Void after a cancel: nobody was meant to see them. */
  framesVoided = 0;
  underruns = 0;
  /** Milliseconds that a frame of speech was shown after (+) or before (-) its sound. */
  readonly skewsMs = new Window(5_000);
  readonly #shownAtMs = new Window(120);

  shown(atMs: number, skewMs: number | null): void {
    this.framesShown += 1;
    this.#shownAtMs.push(atMs);
    if (skewMs !== null) this.skewsMs.push(skewMs);
  }

  /** Frames shown in the second before `nowMs`. */
  fps(nowMs: number): number {
    return this.#shownAtMs.values.filter((at) => at > nowMs - 1000).length;
  }

  /** 95th percentile of the absolute skew over the last `count` frames of speech, in ms. */
  skewP95(count = 250): number | null {
    const recent = new Window(count);
    for (const skew of this.skewsMs.values.slice(-count)) recent.push(Math.abs(skew));
    return recent.percentile(0.95);
  }
}
