/**
 * Shows media frames in step with their sound. The sound's clock is the master: a frame is drawn
 * when its own 40 ms of audio is heard. At most six frames are decoded ahead, the rest waits
 * compressed; a frame more than a moment too late is dropped, its sound never is.
 */
import { AudioOutput } from "./audio-output";
import { DEFAULT_H264_CODEC, type DecodedImage, Decoder, type PictureFormat } from "./decoder";
import { Emitter } from "./emitter";
import { FrameQueue, type QueuedFrame } from "./frame-queue";
import { PlaybackMetrics } from "./metrics";
import { Playout } from "./playout";
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

/**
 * Pages that nobody sees get no refresh, and not all of them are told that they are hidden: this timer
 * keeps the queues moving.
 */
const UNSEEN_TICK_MS = 200;
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
  readonly #queue = new FrameQueue();
  #complainedAtMs = Number.NEGATIVE_INFINITY;
  #minimumEpoch = 0;
  #lastEpoch = 0;
  #mutedThroughEpoch = -1;
  /** The end of what is shown of a stopped epoch, on the timeline. */
  #stoppedAtS = Number.POSITIVE_INFINITY;
  #frameS = 0.04;
  #format: { picture: PictureFormat; codec: string } = {
    picture: "jpeg",
    codec: DEFAULT_H264_CODEC,
  };
  #refresh = 0;
  #refreshedAtMs = performance.now();
  readonly #unseenTimer: ReturnType<typeof setInterval>;

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
    this.#unseenTimer = setInterval(() => {
      if (performance.now() - this.#refreshedAtMs >= UNSEEN_TICK_MS) this.#tick();
    }, UNSEEN_TICK_MS);
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
    if (placement.squeezeBeforeS !== null) {
      this.#queue.squeeze(this.audio.heard(), placement.squeezeBeforeS);
    }
    if (placement.underrun) {
      this.metrics.underruns += 1;
      this.emit("underrun", this.metrics.underruns);
    }
    if (!idle && wire.audio.length > 0 && wire.epoch > this.#mutedThroughEpoch) {
      this.audio.schedule(pcmToFloat(wire.audio), placement.dueS);
    }
    if (wire.video.length > 0) this.metrics.framesReceived += 1;
    this.#queue.add(wire, placement.dueS);
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
    this.#queue.hold(this.#mutedThroughEpoch, this.#stoppedAtS);
  }

  /** A new response begins: a stop that came too late to be needed must not silence it. */
  unmute(): void {
    this.#mutedThroughEpoch = -1;
    this.#thaw();
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
    clearInterval(this.#unseenTimer);
    this.#void(() => true);
    this.#decoder.close();
    await this.audio.close();
  }

  readonly #onRefresh = (): void => {
    this.#refreshedAtMs = performance.now();
    this.#tick();
    this.#refresh = requestAnimationFrame(this.#onRefresh);
  };

  #tick(): void {
    const heardS = this.audio.heard();
    if (heardS > this.#stoppedAtS + FREEZE_S) this.#thaw();
    const { shown, passed, dropped } = this.#queue.takeDue(heardS);
    for (const frame of passed) this.#pass(frame);
    this.metrics.framesDropped += dropped;
    if (shown?.image) {
      this.#draw(shown.image);
      this.#pass(shown);
      this.#report(shown, heardS);
    }
    this.#feedDecoder();
  }

  #thaw(): void {
    this.#stoppedAtS = Number.POSITIVE_INFINITY;
    this.#queue.release();
  }

  #isAudible(entry: QueuedFrame): boolean {
    const { flags, response } = entry.wire;
    return (flags & Flag.Idle) === 0 && response !== 0 && !this.#queue.isHeld(entry);
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

  #feedDecoder(): void {
    this.metrics.framesDropped += this.#queue.skipLate(this.audio.heard());
    for (const { id, wire } of this.#queue.takeUndecoded(this.#decoder.inFlight)) {
      this.#decoder.decode(id, (wire.flags & Flag.Keyframe) !== 0, wire.video);
    }
  }

  #onDecoded(id: number, image: DecodedImage): void {
    if (!this.#queue.decoded(id, image)) image.close();
  }

  #discard(id: number): void {
    const frame = this.#queue.find(id);
    const nowMs = performance.now();
    if (frame && nowMs - this.#complainedAtMs > COMPLAIN_EVERY_MS) {
      this.#complainedAtMs = nowMs;
      this.emit("lostThread", { seq: frame.wire.seq });
    }
    this.metrics.framesDropped += this.#queue.remove((candidate) => candidate.id === id);
  }

  #void(isStale: (frame: QueuedFrame) => boolean): void {
    this.metrics.framesVoided += this.#queue.remove(isStale);
  }
}
