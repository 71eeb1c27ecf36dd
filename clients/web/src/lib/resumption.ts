/**
 * What of a lost session can be taken up again, and until when. Pure bookkeeping: no socket, and the
 * clock is the caller's.
 */
import type { OnDisconnect, ResumeOffer, SessionExpiring, SessionResume } from "./protocol";
import { mayResumeAfter, verdictOf } from "./retry";

/** How a socket was lost. */
export interface Loss {
  closeCode: number;
  wasLive: boolean;
  /** The engine restarts; it asked to wait for so many seconds. */
  restartS?: number | null;
}

export class Resumption {
  #offer: ResumeOffer | null = null;
  #onDisconnect: OnDisconnect = "hold";
  #heldUntilMs = 0;
  #lastSeq: number | null = null;
  #lastEventId: string | null = null;
  #attempting = false;

  /** A `session.resume` was sent and has not been answered. */
  get attempting(): boolean {
    return this.#attempting;
  }

  /** The server greets: its offer is for the session that begins, not for the one to be resumed. */
  created(offer: ResumeOffer | null | undefined): void {
    if (!this.#attempting) this.#offer = offer ?? null;
  }

  resumed(offer: ResumeOffer | null | undefined): void {
    this.#offer = offer ?? this.#offer;
    this.#attempting = false;
  }

  /** What the session does without its connection. */
  configured(onDisconnect: OnDisconnect | undefined): void {
    this.#onDisconnect = onDisconnect ?? "hold";
  }

  /** Nothing to resume: the session that begins is a new one. */
  begun(): void {
    this.#attempting = false;
  }

  /** A server that leaves or restarts ends its sessions, unless it says that they can be resumed. */
  expiring({ reason, resumable }: SessionExpiring): void {
    const leaves = reason === "server_draining" || reason === "engine_restarting";
    if (leaves && resumable !== true) this.#offer = null;
  }

  /** A binary message came. */
  seen(seq: number): void {
    this.#lastSeq = seq;
  }

  /** An event came; those after it are sent again. */
  heard(eventId: string | undefined): void {
    this.#lastEventId = eventId ?? this.#lastEventId;
  }

  /**
   * The socket closed. Returns whether it was the resume that was refused: then the held session is
   * gone, but not the way to a new one.
   */
  lost({ closeCode, wasLive, restartS = null }: Loss, nowMs: number): boolean {
    const attempted = this.#attempting;
    this.#attempting = false;
    const ttlMs = (this.#offer?.ttl_s ?? 0) * 1000;
    const held = this.#onDisconnect === "hold" && mayResumeAfter(closeCode);
    if (wasLive) this.#heldUntilMs = held ? nowMs + ttlMs : 0;
    else if (verdictOf(closeCode) !== "retry") this.#heldUntilMs = 0;
    // The time to live stands still while nobody can come back.
    if (restartS !== null && this.isPossibleAt(nowMs)) {
      this.#heldUntilMs = nowMs + restartS * 1000 + ttlMs;
    }
    return attempted && (closeCode === 4403 || closeCode === 4404);
  }

  /** Whether the server will still hold the session then. */
  isPossibleAt(timeMs: number): boolean {
    return this.#offer !== null && timeMs < this.#heldUntilMs;
  }

  /** The first event on a new socket; null when it has to be a new session. */
  attempt(nowMs: number): SessionResume | null {
    if (!this.#offer || !this.isPossibleAt(nowMs)) return null;
    this.#attempting = true;
    return {
      type: "session.resume",
      handle: this.#offer.handle,
      last_seq: this.#lastSeq,
      last_event_id: this.#lastEventId,
    };
  }

  forget(): void {
    this.#offer = null;
    this.#lastSeq = null;
    this.#lastEventId = null;
    this.#heldUntilMs = 0;
    this.#attempting = false;
  }
}
