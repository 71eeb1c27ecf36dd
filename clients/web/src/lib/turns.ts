/**
 * The turns of a conversation as the viewer sees them: opened by the speaker, begun with the first
 * frame on the screen, finished with the last. Pure bookkeeping without clock or socket.
 */

import type { ShownFrame } from "./player";

export class Turns {
  #lastFirstFrameMs: number | null = null;
  #open = false;
  #openedAtMs: number[] = [];
  #lastResponse = 0;
  #shownResponse = 0;
  /** Responses of which all was sent and not all was seen: the last frame that was there by then. */
  readonly #sentThrough = new Map<number, number>();
  #lastFinished = 0;
  #speaking = false;

  /** Milliseconds from begin to first frame, of the last utterance; null before the first. */
  get lastFirstFrameMs(): number | null {
    return this.#lastFirstFrameMs;
  }

  get speaking(): boolean {
    return this.#speaking;
  }

  get busy(): boolean {
    return this.#speaking || this.#open || this.#openedAtMs.length > 0;
  }

  /** False when an utterance is open already. */
  begin(atMs: number): boolean {
    if (this.#open) return false;
    this.#open = true;
    this.#openedAtMs.push(atMs);
    return true;
  }

  /** False when none is open. */
  end(): boolean {
    const was = this.#open;
    this.#open = false;
    return was;
  }

  shown(frame: ShownFrame, atMs: number): { firstFrameMs: number | null; finished: number[] } {
    let firstFrameMs: number | null = null;
    if (frame.speech && frame.response !== this.#lastResponse) {
      this.#lastResponse = frame.response;
      const openedAtMs = this.#openedAtMs.shift();
      if (openedAtMs !== undefined) {
        firstFrameMs = atMs - openedAtMs;
        this.#lastFirstFrameMs = firstFrameMs;
      }
    }
    this.#speaking = frame.speech && !frame.last;
    return { firstFrameMs, finished: this.#finishedBy(frame) };
  }

  /**
   * All of a response was sent, up to that frame. It is seen later; and while its speaker pauses,
   * frames of an idle face stand between its own, so that those do not end it.
   */
  completed(response: number, lastSeq: number): void {
    if (response > this.#lastFinished) this.#sentThrough.set(response, lastSeq);
  }

  /** A response failed before it was seen. */
  failed(): void {
    this.#openedAtMs.shift();
  }

  /** The utterance that is open was taken back. */
  withdrawn(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#openedAtMs.pop();
  }

  /** Speech was cut off: what was on the screen will not be finished. */
  silence(): void {
    this.#speaking = false;
    this.#shownResponse = 0;
    this.#sentThrough.clear();
  }

  /** Nothing that was begun will be answered. */
  forget(): void {
    this.#open = false;
    this.#openedAtMs = [];
  }

  /** A new session counts its responses anew. */
  newTimeline(): void {
    this.silence();
    this.#lastResponse = 0;
    this.#lastFinished = 0;
  }

  /** A response ends with its last frame, or, if that was dropped, with one shown after it. */
  #finishedBy(frame: ShownFrame): number[] {
    const finished: number[] = [];
    const showing = frame.speech ? frame.response : 0;
    if (frame.speech && this.#shownResponse !== 0 && showing !== this.#shownResponse) {
      finished.push(this.#shownResponse);
    }
    for (const [response, lastSeq] of this.#sentThrough) {
      if (response === showing || frame.seq <= lastSeq) continue;
      if (response > this.#lastResponse) this.#unseen(response);
      if (!finished.includes(response)) finished.push(response);
    }
    if (frame.speech) this.#shownResponse = showing;
    if (frame.speech && frame.last) finished.push(showing);
    for (const response of finished) {
      this.#sentThrough.delete(response);
      this.#lastFinished = Math.max(this.#lastFinished, response);
      if (response === this.#shownResponse) this.#shownResponse = 0;
    }
    return finished;
  }

  /** Not one frame of a response was seen: nobody shall wait for it. */
  #unseen(response: number): void {
    this.#lastResponse = response;
    this.#openedAtMs.shift();
  }
}
