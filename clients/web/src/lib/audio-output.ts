/**
 * Sound out and the master clock. Every slice of speech becomes one AudioBufferSource at its exact
 * sample; the time that the listener hears is the time that the picture follows. Until a gesture
 * has allowed sound, the same timeline runs on the system clock, so that an idle face still lives.
 */

/** A slice within this of the previous slice's end is joined to it without a gap. */
const JOIN_S = 0.002;
/** Shorter fades are heard as a click. */
const CLICK_FREE_S = 0.012;
/** Output timestamps outside this window behind the context time are not believed. */
const MAX_LATENCY_S = 0.6;

export class AudioOutput {
  #context: AudioContext | null = null;
  #gain: GainNode | null = null;
  readonly #sources = new Set<AudioBufferSourceNode>();
  /** Timeline time = clock time + shift; the shift changes when the clock does. */
  #shiftS = 0;
  #onAudioClock = false;
  #nextStartS = 0;
  #analyser: AnalyserNode | null = null;
  #tap: MediaStreamAudioDestinationNode | null = null;
  #levels = new Float32Array(512);

  /** `sampleRate` in Hz; a context at the stream's own rate joins slices without resampling. */
  constructor(readonly sampleRate: number) {}

  get running(): boolean {
    return this.#onAudioClock;
  }

  /** Call from a user gesture: browsers allow sound only then. */
  async unlock(): Promise<void> {
    if (!this.#context) {
      const context = new AudioContext({ sampleRate: this.sampleRate, latencyHint: "interactive" });
      this.#context = context;
      this.#analyser = new AnalyserNode(context, { fftSize: this.#levels.length });
      this.#analyser.connect(context.destination);
      context.addEventListener("statechange", () => this.#followState());
    }
    if (this.#context.state !== "running") await this.#context.resume();
    this.#followState();
  }

  /** Timeline seconds: the earliest time at which newly scheduled sound can start. */
  now(): number {
    const clockS = this.#onAudioClock
      ? (this.#context?.currentTime ?? 0)
      : performance.now() / 1000;
    return clockS + this.#shiftS;
  }

  /** Timeline seconds of the sound that leaves the loudspeaker now. */
  heard(): number {
    const context = this.#context;
    if (!this.#onAudioClock || !context) return this.now();
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    const currentS = context.currentTime;
    if (contextTime === undefined || performanceTime === undefined || contextTime <= 0) {
      return currentS - context.baseLatency + this.#shiftS;
    }
    const heardS = contextTime + (performance.now() - performanceTime) / 1000;
    const sane = heardS <= currentS + 0.05 && heardS >= currentS - MAX_LATENCY_S;
    return (sane ? heardS : currentS - context.baseLatency) + this.#shiftS;
  }

  /** Loudness of what plays now, 0 to 1. */
  level(): number {
    if (!this.#analyser) return 0;
    this.#analyser.getFloatTimeDomainData(this.#levels);
    let sum = 0;
    for (const sample of this.#levels) sum += sample * sample;
    return Math.min(1, Math.sqrt(sum / this.#levels.length) * 4);
  }

  schedule(samples: Float32Array<ArrayBuffer>, dueS: number): void {
    const context = this.#context;
    if (!this.#onAudioClock || !context || !this.#analyser || samples.length === 0) return;
    this.#gain ??= this.#newGain(context, this.#analyser);
    const buffer = context.createBuffer(1, samples.length, this.sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(this.#gain);
    source.addEventListener("ended", () => this.#sources.delete(source));
    this.#sources.add(source);
    const startS = this.#joined(dueS - this.#shiftS);
    source.start(Math.max(0, startS));
    this.#nextStartS = startS + buffer.duration;
  }

  /** Silence within `fadeS`: what plays fades out, every scheduled slice after that is gone. */
  stop(fadeS = CLICK_FREE_S): void {
    const context = this.#context;
    if (!context || !this.#gain) return;
    const nowS = context.currentTime;
    const endS = nowS + Math.max(fadeS, CLICK_FREE_S);
    this.#gain.gain.setValueAtTime(1, nowS);
    this.#gain.gain.linearRampToValueAtTime(0, endS);
    for (const source of this.#sources) source.stop(endS);
    this.#sources.clear();
    this.#gain = null;
    this.#nextStartS = 0;
  }

  /** What is heard, as a stream for a MediaRecorder; null before sound was allowed. */
  stream(): MediaStream | null {
    if (!this.#context || !this.#analyser) return null;
    this.#tap ??= new MediaStreamAudioDestinationNode(this.#context);
    this.#analyser.connect(this.#tap);
    return this.#tap.stream;
  }

  async close(): Promise<void> {
    this.stop();
    await this.#context?.close();
    this.#context = null;
    this.#onAudioClock = false;
  }

  #joined(startS: number): number {
    if (Math.abs(startS - this.#nextStartS) < JOIN_S) return this.#nextStartS;
    return Math.round(startS * this.sampleRate) / this.sampleRate;
  }

  #newGain(context: AudioContext, target: AudioNode): GainNode {
    const gain = new GainNode(context);
    gain.connect(target);
    return gain;
  }

  /** Changes clocks without a jump of the timeline. */
  #followState(): void {
    const running = this.#context?.state === "running";
    if (running === this.#onAudioClock) return;
    const timelineS = this.now();
    this.#onAudioClock = running;
    this.#shiftS = 0;
    this.#shiftS = timelineS - this.now();
    this.#nextStartS = 0;
  }
}
