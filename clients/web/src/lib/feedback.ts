/**
 * What the server is told of the playout: acknowledgements, which are its credit for more and name
 * the frame to go on from after a barge-in, and pings.
 */
import type { Connection } from "./connection";
import type { Player, ShownFrame } from "./player";
import { RoundTrip } from "./round-trip";

const ACKNOWLEDGE_MS = 300;

export class Feedback {
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #roundTrip = new RoundTrip();
  #lastShown: ShownFrame | null = null;
  #lastSeq = 0;

  constructor(
    readonly player: Player,
    /** The connection in use, if there is one. */
    readonly connection: () => Connection | null,
  ) {
    this.#timer = setInterval(() => this.acknowledge(), ACKNOWLEDGE_MS);
  }

  /** Of the last ping that was answered; null before the first. */
  get roundTripMs(): number | null {
    return this.#roundTrip.lastMs;
  }

  /** Of the frame that came last. */
  get lastSeq(): number {
    return this.#lastSeq;
  }

  received(seq: number): void {
    this.#lastSeq = seq;
  }

  shown(frame: ShownFrame): void {
    this.#lastShown = frame;
  }

  /** Frames of a timeline that has ended are no credit for the next. */
  newTimeline(): void {
    this.#lastShown = null;
  }

  acknowledge(): void {
    const shown = this.#lastShown;
    const connection = this.connection();
    if (!shown || !connection?.live) return;
    connection.tell({
      type: "playback.update",
      seq: this.#lastSeq,
      pts_us: shown.ptsUs,
      buffered_ms: Math.round(this.player.bufferedMs),
      underruns: this.player.metrics.underruns,
      skew_ms: Math.round(shown.skewMs * 10) / 10,
    });
  }

  /** Only around speech: a ping counts as a sign of life, and an idle page shall expire. */
  ping(): void {
    const connection = this.connection();
    if (!connection?.live) return;
    connection.tell({ type: "session.ping", t: this.#roundTrip.ping(performance.now()) });
  }

  pong(t: number | string | null): void {
    this.#roundTrip.pong(t, performance.now());
  }

  close(): void {
    clearInterval(this.#timer);
  }
}
