/**
 * When each frame is due. Frames carry timestamps of the session timeline; this class maps them to
 * the clock of the listener, keeps a small jitter buffer, and absorbs what the network does. Pure
 * arithmetic in seconds: no clock, no audio, no canvas.
 */

export interface TimedFrame {
  ptsS: number;
  durationS: number;
  /** Silent frame between utterances: its timing may be stretched or squeezed unheard. */
  idle: boolean;
  /** First frame of an utterance. */
  first: boolean;
  discontinuity: boolean;
}

export interface PlayoutOptions {
  /** Seconds between the arrival of a frame and its showing, when the network is calm. */
  jitterS: number;
  /** The same for idle frames, whose delays nobody hears. */
  idleJitterS: number;
  /** The jitter buffer grows up to this after underruns. */
  maxJitterS: number;
  /** A frame due sooner than this cannot be made: its sound would start late. */
  minLeadS: number;
  /** Idle frames queued beyond this are played faster until the queue is short again. */
  maxIdleLeadS: number;
}

export const PLAYOUT_DEFAULTS: PlayoutOptions = {
  jitterS: 0.18,
  idleJitterS: 0.06,
  maxJitterS: 0.4,
  minLeadS: 0.01,
  maxIdleLeadS: 0.45,
};

export interface Placement {
  dueS: number;
  /** Speech that came too late: the listener hears a gap. */
  underrun: boolean;
  /** Idle frames still queued must be shown before this time, when it is set. */
  squeezeBeforeS: number | null;
}

const GROW_AFTER_UNDERRUN_S = 0.06;
const SHRINK_PER_SPEECH_FRAME_S = 0.0002;
const IDLE_SPEEDUP_S = 0.012;

export class Playout {
  readonly options: PlayoutOptions;
  #offsetS: number | null = null;
  #jitterS: number;
  #speechEndS = Number.NEGATIVE_INFINITY;
  #endS = Number.NEGATIVE_INFINITY;

  constructor(options: Partial<PlayoutOptions> = {}) {
    this.options = { ...PLAYOUT_DEFAULTS, ...options };
    this.#jitterS = this.options.jitterS;
  }

  get jitterS(): number {
    return this.#jitterS;
  }

  /** Seconds of frames placed ahead of `nowS`. */
  leadS(nowS: number): number {
    return Math.max(0, this.#endS - nowS);
  }

  place(frame: TimedFrame, nowS: number): Placement {
    const wishS = nowS + (frame.idle ? this.options.idleJitterS : this.#jitterS);
    let underrun = false;
    let squeezeBeforeS: number | null = null;
    if (this.#offsetS === null || frame.discontinuity) {
      this.#anchor(frame, Math.max(wishS, this.#speechEndS));
    } else if (this.#dueS(frame) < nowS + this.options.minLeadS) {
      underrun = !frame.idle && !frame.first;
      if (underrun) this.#grow();
      this.#anchor(frame, underrun ? nowS + this.#jitterS : wishS);
    } else if (frame.first && this.#dueS(frame) > wishS) {
      // Idle frames wait ahead of the first word: squeeze them instead of making the viewer wait.
      const dueS = Math.max(wishS, this.#speechEndS);
      if (dueS < this.#dueS(frame)) squeezeBeforeS = dueS;
      this.#anchor(frame, Math.min(dueS, this.#dueS(frame)));
    } else if (frame.idle && this.#dueS(frame) - nowS > this.options.maxIdleLeadS) {
      this.#offsetS -= IDLE_SPEEDUP_S;
    }
    return this.#placed(frame, underrun, squeezeBeforeS);
  }

  /** Forget the timeline, for instance after a flush; the jitter that was learned stays. */
  reset(): void {
    this.#offsetS = null;
    this.#speechEndS = Number.NEGATIVE_INFINITY;
    this.#endS = Number.NEGATIVE_INFINITY;
  }

  #placed(frame: TimedFrame, underrun: boolean, squeezeBeforeS: number | null): Placement {
    const dueS = this.#dueS(frame);
    this.#endS = dueS + frame.durationS;
    if (!frame.idle) {
      this.#speechEndS = this.#endS;
      this.#jitterS = Math.max(this.options.jitterS, this.#jitterS - SHRINK_PER_SPEECH_FRAME_S);
    }
    return { dueS, underrun, squeezeBeforeS };
  }

  #dueS(frame: TimedFrame): number {
    return frame.ptsS + (this.#offsetS ?? 0);
  }

  #anchor(frame: TimedFrame, dueS: number): void {
    this.#offsetS = dueS - frame.ptsS;
  }

  #grow(): void {
    this.#jitterS = Math.min(this.options.maxJitterS, this.#jitterS + GROW_AFTER_UNDERRUN_S);
  }
}

/** Due times in order, moved into (`nowS`, `beforeS`): those already in time stay where they are. */
export function squeeze(duesS: readonly number[], nowS: number, beforeS: number): number[] {
  const firstLate = duesS.findIndex((due) => due > nowS);
  if (firstLate < 0) return [...duesS];
  const waiting = duesS.length - firstLate;
  const stepS = (beforeS - nowS) / (waiting + 1);
  return duesS.map((due, i) =>
    i < firstLate ? due : Math.min(due, nowS + stepS * (i - firstLate + 1)),
  );
}
