/**
 * Shows media frames in step with their sound. The sound's clock is the master: a frame is drawn
 * when its own 40 ms of audio is heard. At most six frames are decoded ahead, the rest waits
 * compressed; a frame more than a moment too late is dropped, its sound never is.
 */
import { AudioOutput } from "./audio-output";
import { DEFAULT_H264_CODEC, type DecodedImage, Decoder, type PictureFormat } from "./decoder";
import { Emitter } from "./emitter";
import { PlaybackMetrics } from "./metrics";
import { Playout, squeeze } from "./playout";
import { Flag } from "./protocol";
import { pcmToFloat, type WireFrame } from "./wire";

/** A frame that was drawn. */
export interface ShownFrame {
  seq: number;
  ptsUs: number;
  response: number;
  /** It belongs to speech that is heard: neither idle nor stopped. */
  speech: boolean;
  first: boolean;
  last: boolean;
  skewMs: number;
}

/** A frame whose moment has passed, whether drawn or not: what a recording is made of. */
export interface PassedFrame {
  wire: WireFrame;
  /** Its place on the listener's timeline, in seconds. */
  dueS: number;
  /** Its sound was heard: neither idle nor silenced by a stop. */
  audible: boolean;
}

export interface PlayerEvents {
  shown: ShownFrame;
  passed: PassedFrame;
  /** A frame could not be decoded, most likely for want of one before it. */
  lostThread: { seq: number };
  underrun: number;
  /** The video could not be decoded; the owner may ask the server for another format. */
  failed: string;
}

interface QueuedFrame {
  id: number;
  wire: WireFrame;
  dueS: number;
  sentToDecoder: boolean;
  image: DecodedImage | null;
}

const LOOK_AHEAD_FRAMES = 6;
/** A frame of speech this late is dropped when the next one is due as well. */
const TOO_LATE_S = 0.06;
/** An idle frame has no sound to keep up with: it may be shown late. */
const TOO_LATE_IDLE_S = 0.25;
/** When frames wait this long beyond their time to be decoded, some are left out. */
const SKIP_S = 0.3;
/** Drawing this early is closer to the truth than waiting for the next refresh. */
const EARLY_S = 0.006;
/** While the page is hidden no refresh comes: this timer keeps the queues moving. */
const HIDDEN_TICK_MS = 200;
/** Frames without their keyframe come in a row: one request answers all. */
const COMPLAIN_EVERY_MS = 500;
/** After a stop the face waits for the server's word, but not longer than this. */
const FREEZE_S = 1;

export class Player extends Emitter<PlayerEvents> {
  readonly metrics = new PlaybackMetrics();
  readonly audio: AudioOutput;
  readonly #context: CanvasRenderingContext2D;
  readonly #decoder: Decoder;
  readonly #playout = new Playout();
  #queue: QueuedFrame[] = [];
  #nextId = 0;
  #complainedAtMs = Number.NEGATIVE_INFINITY;
  #minimumEpoch = 0;
  #lastEpoch = 0;
  #mutedThroughEpoch = -1;
  /** Frames of a stopped epoch are shown up to this time of the timeline. */
  #stoppedAtS = Number.POSITIVE_INFINITY;
  #frameS = 0.04;
  #format: { picture: PictureFormat; codec: string } = {
    picture: "jpeg",
    codec: DEFAULT_H264_CODEC,
  };
  #refresh = 0;
  readonly #hiddenTimer: ReturnType<typeof setInterval>;

  constructor(
    readonly canvas: HTMLCanvasElement,
    sampleRate: number,
  ) {
    super();
    const context = canvas.getContext("2d", { alpha: false });
    if (!context) throw new Error("this browser offers no 2D canvas");
    this.#context = context;
    this.audio = new AudioOutput(sampleRate);
    this.#decoder = new Decoder({
      frame: (id, image) => this.#onDecoded(id, image),
      skipped: (id) => this.#discard(id),
      failed: (message) => this.emit("failed", message),
    });
    this.#hiddenTimer = setInterval(() => document.hidden && this.#tick(), HIDDEN_TICK_MS);
    this.#refresh = requestAnimationFrame(this.#onRefresh);
  }

  get format(): Readonly<{ picture: PictureFormat; codec: string }> {
    return this.#format;
  }

  get bufferedMs(): number {
    return this.#playout.leadS(this.audio.now()) * 1000;
  }

  /** Frames that wait for their moment. */
  get queued(): number {
    return this.#queue.length;
  }

  /** Prepare for a new session: everything that is queued is forgotten. */
  configure(picture: PictureFormat, codec = DEFAULT_H264_CODEC, fps = 25): void {
    this.#format = { picture, codec };
    this.#void(() => true);
    this.audio.stop();
    this.#playout.reset();
    this.#decoder.configure(picture, codec);
    this.#frameS = 1 / fps;
    this.#minimumEpoch = 0;
    this.#lastEpoch = 0;
    this.unmute();
  }

  push(wire: WireFrame): void {
    if (wire.epoch < this.#minimumEpoch) return;
    this.#lastEpoch = wire.epoch;
    const idle = (wire.flags & Flag.Idle) !== 0;
    const placement = this.#playout.place(
      {
        ptsS: wire.ptsUs / 1e6,
        durationS: this.#frameS,
        idle,
        first: (wire.flags & Flag.First) !== 0,
        discontinuity: (wire.flags & Flag.Discontinuity) !== 0,
      },
      this.audio.now(),
    );
    if (placement.squeezeBeforeS !== null) this.#squeeze(placement.squeezeBeforeS);
    if (placement.underrun) {
      this.metrics.underruns += 1;
      this.emit("underrun", this.metrics.underruns);
    }
    if (!idle && wire.audio.length > 0 && wire.epoch > this.#mutedThroughEpoch) {
      this.audio.schedule(pcmToFloat(wire.audio), placement.dueS);
    }
    if (wire.video.length > 0) this.metrics.framesReceived += 1;
    this.#queue.push({
      id: this.#nextId,
      wire,
      dueS: placement.dueS,
      sentToDecoder: wire.video.length === 0,
      image: null,
    });
    this.#nextId += 1;
    this.#feedDecoder();
  }

  /**
   * Barge-in, before the server knows: the sound is gone after `fadeS`, and so is the speech on the
   * face, which rests on its last frame until `clear` brings what comes next.
   */
  stop(fadeS = 0): void {
    this.audio.stop(fadeS);
    this.#mutedThroughEpoch = this.#lastEpoch;
    this.#stoppedAtS = this.audio.heard() + fadeS;
  }

  /** A new response begins: a stop that came too late to be needed must not silence it. */
  unmute(): void {
    this.#mutedThroughEpoch = -1;
    this.#stoppedAtS = Number.POSITIVE_INFINITY;
  }

  /** The server cleared its output: media of an epoch below `epoch` is void, after the fade. */
  clear(epoch: number, fadeS = 0): void {
    this.#minimumEpoch = epoch;
    if (this.#mutedThroughEpoch < epoch - 1) this.audio.stop(fadeS);
    const endS = Math.min(this.#stoppedAtS, this.audio.heard() + fadeS);
    const stale = (entry: QueuedFrame): boolean =>
      entry.wire.epoch < epoch && (entry.dueS > endS || !entry.image);
    const hadStale = this.#queue.some(stale);
    this.#void(stale);
    if (hadStale) this.#decoder.reset();
    this.#playout.reset();
  }

  async close(): Promise<void> {
    cancelAnimationFrame(this.#refresh);
    clearInterval(this.#hiddenTimer);
    this.#void(() => true);
    this.#decoder.close();
    await this.audio.close();
  }

  readonly #onRefresh = (): void => {
    this.#tick();
    this.#refresh = requestAnimationFrame(this.#onRefresh);
  };

  #tick(): void {
    const heardS = this.audio.heard();
    if (heardS > this.#stoppedAtS + FREEZE_S) this.#stoppedAtS = Number.POSITIVE_INFINITY;
    const entry = this.#takeDue(heardS);
    if (entry?.image) {
      this.#draw(entry.image);
      this.#pass(entry);
      this.#report(entry, heardS);
    }
    this.#feedDecoder();
  }

  /** The frame to draw now, if any; frames that are hopelessly late are dropped on the way. */
  #takeDue(heardS: number): QueuedFrame | null {
    for (;;) {
      const [entry, next] = this.#queue;
      if (!entry || entry.dueS > heardS + EARLY_S || this.#isFrozen(entry)) return null;
      const soundOnly = entry.wire.video.length === 0;
      if (!entry.image && !soundOnly) return null;
      this.#queue.shift();
      if (soundOnly) {
        this.#pass(entry);
        continue;
      }
      const nextIsDue = next?.image && next.dueS <= heardS + EARLY_S && !this.#isFrozen(next);
      const idle = (entry.wire.flags & Flag.Idle) !== 0;
      const tooLateS = idle ? TOO_LATE_IDLE_S : TOO_LATE_S;
      if (!nextIsDue || heardS - entry.dueS < tooLateS) return entry;
      entry.image?.close();
      this.#pass(entry);
      this.metrics.framesDropped += 1;
    }
  }

  #isFrozen(entry: QueuedFrame): boolean {
    return entry.wire.epoch <= this.#mutedThroughEpoch && entry.dueS > this.#stoppedAtS;
  }

  #isAudible(entry: QueuedFrame): boolean {
    const { flags, response } = entry.wire;
    return (flags & Flag.Idle) === 0 && response !== 0 && !this.#isFrozen(entry);
  }

  #pass(entry: QueuedFrame): void {
    const { wire, dueS } = entry;
    this.emit("passed", { wire, dueS, audible: this.#isAudible(entry) });
  }

  #draw(image: DecodedImage): void {
    const width = image instanceof ImageBitmap ? image.width : image.displayWidth;
    const height = image instanceof ImageBitmap ? image.height : image.displayHeight;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.#context.drawImage(image, 0, 0, width, height);
    image.close();
  }

  #report(entry: QueuedFrame, heardS: number): void {
    const { flags, response, seq, ptsUs } = entry.wire;
    const speech = this.#isAudible(entry);
    const skewMs = (heardS - entry.dueS) * 1000;
    this.metrics.shown(performance.now(), speech && this.audio.running ? skewMs : null);
    const first = (flags & Flag.First) !== 0;
    const last = (flags & Flag.Last) !== 0;
    this.emit("shown", { seq, ptsUs, response, speech, first, last, skewMs });
  }

  /** Far behind, decoding every frame would never catch up: start again at a later keyframe. */
  #skipLate(): void {
    const heardS = this.audio.heard();
    const waiting = this.#queue.filter((entry) => !entry.sentToDecoder && !this.#isFrozen(entry));
    const [first] = waiting;
    if (!first || heardS - first.dueS < SKIP_S) return;
    const isKey = (entry: QueuedFrame): boolean => (entry.wire.flags & Flag.Keyframe) !== 0;
    const key = waiting.findLast((entry) => isKey(entry) && entry.dueS <= heardS);
    if (key) this.#drop((entry) => !entry.sentToDecoder && entry.id < key.id);
  }

  #feedDecoder(): void {
    this.#skipLate();
    let held = this.#decoder.inFlight;
    for (const entry of this.#queue) held += entry.image ? 1 : 0;
    for (const entry of this.#queue) {
      if (held >= LOOK_AHEAD_FRAMES) return;
      if (entry.sentToDecoder) continue;
      entry.sentToDecoder = true;
      held += 1;
      this.#decoder.decode(entry.id, (entry.wire.flags & Flag.Keyframe) !== 0, entry.wire.video);
    }
  }

  #onDecoded(id: number, image: DecodedImage): void {
    const entry = this.#queue.find((candidate) => candidate.id === id);
    if (entry) entry.image = image;
    else image.close();
  }

  #discard(id: number): void {
    const entry = this.#queue.find((candidate) => candidate.id === id);
    const nowMs = performance.now();
    if (entry && nowMs - this.#complainedAtMs > COMPLAIN_EVERY_MS) {
      this.#complainedAtMs = nowMs;
      this.emit("lostThread", { seq: entry.wire.seq });
    }
    this.#drop((candidate) => candidate.id === id);
  }

  #drop(isLost: (entry: QueuedFrame) => boolean): void {
    this.metrics.framesDropped += this.#remove(isLost);
  }

  #void(isStale: (entry: QueuedFrame) => boolean): void {
    this.metrics.framesVoided += this.#remove(isStale);
  }

  /** Returns how many pictures went. */
  #remove(isGone: (entry: QueuedFrame) => boolean): number {
    let pictures = 0;
    this.#queue = this.#queue.filter((entry) => {
      if (!isGone(entry)) return true;
      entry.image?.close();
      pictures += entry.wire.video.length > 0 ? 1 : 0;
      return false;
    });
    return pictures;
  }

  #squeeze(beforeS: number): void {
    const dues = squeeze(
      this.#queue.map((entry) => entry.dueS),
      this.audio.heard(),
      beforeS,
    );
    for (const [i, entry] of this.#queue.entries()) entry.dueS = dues[i] ?? entry.dueS;
  }
}
