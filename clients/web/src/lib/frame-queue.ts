/**
 * Frames that wait for their moment: compressed at first, a few of them decoded ahead. Says which is
 * to be drawn, which is hopelessly late, and which to decode next. No clock, no sound, no canvas.
 */
import type { DecodedImage } from "./decoder";
import { squeeze } from "./playout";
import { Flag } from "./protocol";
import type { WireFrame } from "./wire";

export interface QueuedFrame {
  readonly id: number;
  readonly wire: WireFrame;
  /** Seconds of the listener's timeline. */
  dueS: number;
  sentToDecoder: boolean;
  image: DecodedImage | null;
}

/** What became of the frames whose moment has come. */
export interface DueFrames {
  /** To be drawn now, the latest of them; its image is the taker's to close. */
  shown: QueuedFrame | null;
  /** In order: frames without a picture, and those whose picture is too late to be shown. */
  passed: readonly QueuedFrame[];
  /** Pictures among `passed`. */
  dropped: number;
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

export class FrameQueue {
  #frames: QueuedFrame[] = [];
  #nextId = 0;
  #heldThroughEpoch = -1;
  #heldFromS = Number.POSITIVE_INFINITY;

  get length(): number {
    return this.#frames.length;
  }

  add(wire: WireFrame, dueS: number): void {
    const sentToDecoder = wire.video.length === 0;
    this.#frames.push({ id: this.#nextId, wire, dueS, sentToDecoder, image: null });
    this.#nextId += 1;
  }

  /** Frames of epochs up to `throughEpoch` that are due after `fromS` wait, until `release`. */
  hold(throughEpoch: number, fromS: number): void {
    this.#heldThroughEpoch = throughEpoch;
    this.#heldFromS = fromS;
  }

  release(): void {
    this.hold(-1, Number.POSITIVE_INFINITY);
  }

  isHeld(frame: QueuedFrame): boolean {
    return frame.wire.epoch <= this.#heldThroughEpoch && frame.dueS > this.#heldFromS;
  }

  /** Takes out what is due when `heardS` is heard. */
  takeDue(heardS: number): DueFrames {
    const passed: QueuedFrame[] = [];
    let dropped = 0;
    for (;;) {
      const [frame, next] = this.#frames;
      if (!frame || !this.#isDue(frame, heardS)) return { shown: null, passed, dropped };
      const soundOnly = frame.wire.video.length === 0;
      if (!frame.image && !soundOnly) return { shown: null, passed, dropped };
      this.#frames.shift();
      if (!soundOnly) {
        const nextIsDue = next?.image && this.#isDue(next, heardS);
        const idle = (frame.wire.flags & Flag.Idle) !== 0;
        const tooLateS = idle ? TOO_LATE_IDLE_S : TOO_LATE_S;
        if (!nextIsDue || heardS - frame.dueS < tooLateS) return { shown: frame, passed, dropped };
        frame.image?.close();
        dropped += 1;
      }
      passed.push(frame);
    }
  }

  /** The frames to decode next, while `inFlight` are being decoded; they count as sent. */
  takeUndecoded(inFlight: number): QueuedFrame[] {
    let free = LOOK_AHEAD_FRAMES - inFlight;
    for (const frame of this.#frames) free -= frame.image ? 1 : 0;
    const taken = this.#frames.filter((frame) => !frame.sentToDecoder).slice(0, Math.max(0, free));
    for (const frame of taken) frame.sentToDecoder = true;
    return taken;
  }

  /**
   * Far behind, decoding every frame would never catch up: leaves out what comes before a later
   * keyframe. Returns how many pictures that were.
   */
  skipLate(heardS: number): number {
    const waiting = this.#frames.filter((frame) => !frame.sentToDecoder && !this.isHeld(frame));
    const [first] = waiting;
    if (!first || heardS - first.dueS < SKIP_S) return 0;
    const key = waiting.findLast(
      (frame) => (frame.wire.flags & Flag.Keyframe) !== 0 && frame.dueS <= heardS,
    );
    return key ? this.remove((frame) => !frame.sentToDecoder && frame.id < key.id) : 0;
  }

  /** False when nobody waits for that picture any more: it is the caller's to close. */
  decoded(id: number, image: DecodedImage): boolean {
    const frame = this.find(id);
    if (frame) frame.image = image;
    return frame !== undefined;
  }

  find(id: number): QueuedFrame | undefined {
    return this.#frames.find((frame) => frame.id === id);
  }

  some(is: (frame: QueuedFrame) => boolean): boolean {
    return this.#frames.some(is);
  }

  /** Returns how many pictures went. */
  remove(isGone: (frame: QueuedFrame) => boolean): number {
    let pictures = 0;
    this.#frames = this.#frames.filter((frame) => {
      if (!isGone(frame)) return true;
      frame.image?.close();
      pictures += frame.wire.video.length > 0 ? 1 : 0;
      return false;
    });
    return pictures;
  }

  /** Moves what is not due yet before `beforeS`. */
  squeeze(heardS: number, beforeS: number): void {
    const dues = squeeze(
      this.#frames.map((frame) => frame.dueS),
      heardS,
      beforeS,
    );
    for (const [i, frame] of this.#frames.entries()) frame.dueS = dues[i] ?? frame.dueS;
  }

  #isDue(frame: QueuedFrame, heardS: number): boolean {
    return frame.dueS <= heardS + EARLY_S && !this.isHeld(frame);
  }
}
