/** Where a session stands, in the words that a page needs. */
import type { AvatarError } from "./errors";
import type { EffectiveSettings, SessionCreated } from "./protocol";

/** What a server says of itself when a session begins. */
export type ServerFacts = Pick<
  SessionCreated,
  "engine" | "features" | "limits" | "model" | "output" | "server_version" | "timing"
>;

export type ConnectionStatus =
  | { state: "connecting" }
  /** All places are taken: `position` 1 is next; `etaS` null when nobody can tell. */
  | { state: "queued"; position: number; etaS: number | null }
  /** `progress` from 0 to 1. */
  | { state: "loading"; stage: string; progress: number }
  /** `resumed`: the same session goes on after a loss. */
  | { state: "live"; settings: EffectiveSettings; resumed: boolean }
  /** Lost; the next try is in `delayMs`. `resuming`: the server still holds the session. */
  | {
      state: "reconnecting";
      attempt: number;
      delayMs: number;
      resuming: boolean;
      error: AvatarError;
    }
  /** A limit was reached; a new session works. */
  | { state: "expired"; error: AvatarError }
  /** The same again cannot work; `error.remedy` says what can. */
  | { state: "refused"; error: AvatarError }
  | { state: "closed" };

/** What the face does while the session is live. */
export type Activity = "idle" | "listening" | "speaking";

export type AvatarStatus =
  | Exclude<ConnectionStatus, { state: "live" }>
  | (Extract<ConnectionStatus, { state: "live" }> & { activity: Activity });
