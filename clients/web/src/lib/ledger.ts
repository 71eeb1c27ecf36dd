/**
 * Audio that the server was sent and has not given back, by utterance. An utterance gets its number
 * with `response.created`, its sound comes back with the frames of that number.
 */
import { Flag } from "./protocol";
import type { WireFrame } from "./wire";

export interface Utterance {
  /** `seq` of its first audio; null before it was sent. */
  firstSeq: number | null;
  /** `response_index`, once the server has said it. */
  index: number | null;
  /** Samples sent and not come back. */
  unreturned: number;
  /** Nothing of it comes any more: it was cancelled, or the server is done with it. */
  over: boolean;
}

export function newUtterance(): Utterance {
  return { firstSeq: null, index: null, unreturned: 0, over: false };
}

export class Ledger {
  #sent: Utterance[] = [];
  #lastIndex = 0;
  /** Samples whose frames were lost with a connection. */
  #lost = 0;

  /** Samples sent and not come back. */
  get unreturned(): number {
    return this.#sent.reduce((sum, { unreturned }) => sum + unreturned, 0);
  }

  /** The same without those whose frames were lost: what may still be with the server. */
  get outstanding(): number {
    return Math.max(0, this.unreturned - this.#lost);
  }

  /** Utterances that the server has at least a part of and has not ended. */
  get count(): number {
    return this.#sent.length;
  }

  /** Audio of `utterance` goes out for the first time. */
  sent(utterance: Utterance, samples: number, seq: number): void {
    if (utterance.firstSeq === null) {
      utterance.firstSeq = seq;
      this.#sent.push(utterance);
    }
    utterance.unreturned += samples;
  }

  /** The oldest utterance without a number gets it; after a resume this may be said again. */
  created(index: number): void {
    if (index <= this.#lastIndex) return;
    this.#lastIndex = index;
    const utterance = this.#sent.find((candidate) => candidate.index === null);
    if (utterance) utterance.index = index;
  }

  /** A frame came back with its sound. */
  returned({ flags, response, audio }: WireFrame): void {
    if ((flags & Flag.Idle) !== 0) return;
    const utterance = this.#sent.find(({ index }) => index === response);
    if (!utterance) return;
    utterance.unreturned = Math.max(0, utterance.unreturned - audio.length / 2);
    if ((flags & Flag.Last) === 0) return;
    utterance.unreturned = 0;
    this.#lost = 0;
  }

  /** So many samples were with frames that will not come. */
  framesLost(samples: number): void {
    this.#lost += samples;
  }

  /** The server dropped so much of the utterance that is open. */
  cleared(samples: number): void {
    const last = this.#sent.at(-1);
    if (last) last.unreturned = Math.max(0, last.unreturned - samples);
  }

  /** A response is over, however it ended; they end in their order. */
  done(index: number): void {
    const at = this.#sent.findIndex((candidate) => candidate.index === index);
    for (const utterance of this.#sent.splice(0, at + 1)) utterance.over = true;
    this.#lost = 0;
  }

  /** Nothing of what was sent will come back; its numbers and its ends still do. */
  cancelled(): void {
    for (const utterance of this.#sent) {
      utterance.unreturned = 0;
      utterance.over = true;
    }
    this.#lost = 0;
  }

  /** After a resume: what was cancelled before the server had any of it gets no number. */
  resumed(wasTaken: (seq: number) => boolean): void {
    this.#sent = this.#sent.filter(
      ({ firstSeq, index, over }) =>
        index !== null || !over || (firstSeq !== null && wasTaken(firstSeq)),
    );
  }
}
