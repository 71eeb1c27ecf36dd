/** Everything that can go wrong, said plainly, each with a way out. */
import { AvatarError, type AvatarStatus } from "../lib";
import { wantsKey } from "./access";

export interface Advice {
  title: string;
  remedy: string;
  /** Label of the button that tries again; none when trying again cannot help. */
  action?: string;
  /** Ask for an access key. */
  key?: boolean;
}

const TITLES: Readonly<Record<string, string>> = {
  capacity: "Every seat is taken",
  model_loading: "The model is still loading",
  server_draining: "The server restarts",
  avatar_not_found: "That portrait is gone",
  origin_not_allowed: "This address may not use the server",
  idle_timeout: "Still there?",
  max_duration: "Time is up",
  slow_client: "The connection was too slow",
  engine_failed: "The model stumbled",
  engine_restarting: "The model restarts",
  internal_error: "The server stumbled",
  taken_over: "Open in another window",
  session_ended: "The session was ended",
  missing_token: "This server wants a key",
  invalid_token: "That key does not fit",
  token_expired: "The key has run out",
  not_permitted: "This key does not allow it",
  quota_exceeded: "This key has used up its share",
  rate_limited: "A little slower, please",
  unsupported_protocol: "Page and server do not match",
  connection_lost: "The connection is lost",
};

const ACTIONS: Readonly<Record<string, string>> = {
  idle_timeout: "Wake it up",
  max_duration: "Start again",
  taken_over: "Use it here",
  avatar_not_found: "",
  origin_not_allowed: "",
  session_ended: "",
  unsupported_protocol: "Reload",
};

/** What the stage says while the session is not live; null while there is nothing to say. */
export function statusAdvice(status: AvatarStatus): Advice | null {
  switch (status.state) {
    case "reconnecting":
      return {
        title: TITLES[status.error.code] ?? "The connection is lost",
        remedy: status.resuming
          ? "Your conversation is kept. It goes on as soon as the network is back."
          : status.error.remedy,
        action: "Try now",
      };
    case "expired":
    case "refused":
      return {
        title: TITLES[status.error.code] ?? "The session ended",
        remedy: TITLES[status.error.code] ? status.error.remedy : sentence(status.error.message),
        action: ACTIONS[status.error.code] ?? "Try again",
        key: wantsKey(status.error.code),
      };
    default:
      return null;
  }
}

/** What the pill says. */
export function statusText(status: AvatarStatus): string {
  switch (status.state) {
    case "live":
      return { idle: "Ready", listening: "Listening", speaking: "Speaking" }[status.activity];
    case "queued":
      return "Waiting";
    case "loading":
      return "Loading";
    case "reconnecting":
      return "Reconnecting";
    case "expired":
      return "Ended";
    case "refused":
      return "Stopped";
    case "closed":
      return "Closed";
    default:
      return "Connecting";
  }
}

/** The waiting room: place in line, and how long it may take. */
export function queueText(position: number, etaS: number | null): string {
  const place = position <= 1 ? "You are next in line" : `You are number ${position} in line`;
  if (etaS === null || etaS <= 0) return place;
  const about =
    etaS < 90 ? `${Math.ceil(etaS / 10) * 10} seconds` : `${Math.ceil(etaS / 60)} minutes`;
  return `${place}, about ${about}`;
}

const STAGES: Readonly<Record<string, string>> = {
  avatar: "Preparing the portrait",
};

export function loadingText(stage: string): string {
  const words = STAGES[stage] ?? stage.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1) || "Preparing the portrait";
}

export function expiringText(reason: string, deadlineS: number, resumable: boolean): string {
  const when = `in ${Math.max(1, Math.round(deadlineS))} seconds`;
  if (reason === "idle") return `Nothing was said for long: the session ends ${when}.`;
  if (reason === "max_duration") return `The longest session time is near: it ends ${when}.`;
  if (resumable) return `The server restarts ${when}. The talk goes on by itself.`;
  return `The server restarts ${when}. The page opens a new session by itself.`;
}

export const UNREACHABLE: Advice = {
  title: "The server does not answer",
  remedy: "Start it with “visavis\u00a0serve”, then try again.",
  action: "Try again",
};

export const NO_PORTRAITS: Advice = {
  title: "No portrait yet",
  remedy: "Add a photo with one clearly visible face to begin.",
  action: "Add a photo",
};

/** A notice: what happened, then what to do about it. */
export function complaint(error: unknown): string {
  if (!(error instanceof AvatarError)) return sentence(String(error));
  if (error.code === "connection_lost") return `${UNREACHABLE.title}. ${UNREACHABLE.remedy}`;
  const what = sentence(error.message);
  // Messages about a photo, and about what cannot be had together, already say what would help.
  const helps = error.code === "invalid_image" || error.code === "invalid_options";
  return helps ? what : `${what} ${error.remedy}`;
}

/** The server's messages are clauses; on the page they are sentences. */
export function sentence(message: string): string {
  const text = message.trim();
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}
