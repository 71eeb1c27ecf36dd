/** Figures for browser tests and for the curious: `window.__visavis`. */
import type { AvatarSession, SessionStats } from "../lib";

export interface VisavisHook {
  /** The session's state, or while it is live what the face does. */
  readonly state: string;
  readonly picture: string;
  readonly stats: SessionStats;
  /** Utterances that were shown to their end, or cut off. */
  readonly utterances: number;
  /** Sessions that were opened, and losses after which the same one went on. */
  readonly sessions: number;
  readonly resumed: number;
  /** Loudness of what is heard now, 0 to 1. */
  readonly level: number;
  /** When the last frame of speech was drawn, by `performance.now()`. */
  readonly lastSpeechShownAtMs: number | null;
  lastError: string | null;
}

declare global {
  interface Window {
    __visavis?: VisavisHook;
  }
}

export function installHook(session: AvatarSession): VisavisHook {
  let utterances = 0;
  let sessions = 0;
  let resumed = 0;
  let lastSpeechShownAtMs: number | null = null;
  session.on("finished", () => {
    utterances += 1;
  });
  session.on("shown", ({ speech }) => {
    if (speech) lastSpeechShownAtMs = performance.now();
  });
  let wasLive = false;
  session.on("status", (status) => {
    const live = status.state === "live";
    if (live && !wasLive && status.resumed) resumed += 1;
    else if (live && !wasLive) sessions += 1;
    wasLive = live;
  });
  const hook: VisavisHook = {
    get state() {
      const { status } = session;
      return status.state === "live" ? status.activity : status.state;
    },
    get picture() {
      return session.picture;
    },
    get stats() {
      return session.stats();
    },
    get utterances() {
      return utterances;
    },
    get sessions() {
      return sessions;
    },
    get resumed() {
      return resumed;
    },
    get level() {
      return session.level;
    },
    get lastSpeechShownAtMs() {
      return lastSpeechShownAtMs;
    },
    lastError: null,
  };
  window.__visavis = hook;
  return hook;
}
