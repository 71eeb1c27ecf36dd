/** Figures for browser tests and for the curious: `window.__visavis`. */
import type { AvatarClient, AvatarState } from "../lib";

export interface VisavisHook {
  readonly state: AvatarState;
  readonly video: string;
  readonly framesReceived: number;
  readonly framesShown: number;
  readonly framesDropped: number;
  /** Received and not yet shown. */
  readonly framesQueued: number;
  readonly underruns: number;
  readonly bufferedMs: number;
  readonly skews: readonly number[];
  readonly utterances: number;
  readonly firstFrameMs: number | null;
  lastError: string | null;
}

declare global {
  interface Window {
    __visavis?: VisavisHook;
  }
}

export function installHook(client: AvatarClient): VisavisHook {
  const { player } = client;
  let firstFrameMs: number | null = null;
  let utterances = 0;
  client.on("firstFrame", (ms) => {
    firstFrameMs = ms;
  });
  client.on("finished", () => {
    utterances += 1;
  });
  const hook: VisavisHook = {
    get state() {
      return client.state;
    },
    get video() {
      return client.video;
    },
    get framesReceived() {
      return player.metrics.framesReceived;
    },
    get framesShown() {
      return player.metrics.framesShown;
    },
    get framesDropped() {
      return client.framesDropped;
    },
    get framesQueued() {
      return player.queued;
    },
    get underruns() {
      return player.metrics.underruns;
    },
    get bufferedMs() {
      return player.bufferedMs;
    },
    get skews() {
      return player.metrics.skewsMs.values;
    },
    /** Utterances that were shown to their end. */
    get utterances() {
      return utterances;
    },
    get firstFrameMs() {
      return firstFrameMs;
    },
    lastError: null,
  };
  window.__visavis = hook;
  return hook;
}
