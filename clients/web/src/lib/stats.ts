/** A snapshot of how well it goes. */
import type { Player } from "./player";
import type { ServerEvent, SessionStats as ServerStats } from "./protocol";

export interface SessionStats {
  /** From the begin of the last utterance to its first frame. */
  firstFrameMs: number | null;
  roundTripMs: number | null;
  /** Frames drawn in the last second. */
  fps: number;
  /** Absolute distance of picture and sound, 95th percentile of the last 250 frames of speech. */
  skewP95Ms: number | null;
  /** Media that waits to be shown. */
  bufferedMs: number;
  framesReceived: number;
  framesShown: number;
  /** Too late or undecodable here, or left out by the server. */
  framesDropped: number;
  /** Void after a barge-in. */
  framesVoided: number;
  framesQueued: number;
  underruns: number;
  /** Signed skews in milliseconds of the last 5,000 frames of speech. */
  skewsMs: readonly number[];
  /** The server's own figures, when it sends them. */
  server: {
    realtimeFactor: number | null;
    generatedFps: number;
    queueMs: number;
    degraded: readonly string[];
  } | null;
}

export interface StatsSources {
  player: Player;
  firstFrameMs: number | null;
  roundTripMs: number | null;
  server: ServerFigures;
}

/** What the server says of itself. */
export class ServerFigures {
  last: ServerStats | null = null;
  /** Frames that it left out. */
  dropped = 0;

  follow(event: ServerEvent): void {
    if (event.type === "session.stats") this.last = event;
    else if (event.type === "output.dropped") this.dropped += event.frames;
  }
}

export function snapshot(from: StatsSources): SessionStats {
  const { player } = from;
  const server = from.server.last;
  const { metrics } = player;
  return {
    firstFrameMs: from.firstFrameMs,
    roundTripMs: from.roundTripMs,
    fps: metrics.fps(performance.now()),
    skewP95Ms: metrics.skewP95(),
    bufferedMs: player.bufferedMs,
    framesReceived: metrics.framesReceived,
    framesShown: metrics.framesShown,
    framesDropped: metrics.framesDropped + from.server.dropped,
    framesVoided: metrics.framesVoided,
    framesQueued: player.queued,
    underruns: metrics.underruns,
    skewsMs: metrics.skewsMs.values,
    server: server && {
      realtimeFactor: server.rtf,
      generatedFps: server.gen_fps,
      queueMs: server.queue_ms,
      degraded: server.degraded ?? [],
    },
  };
}
