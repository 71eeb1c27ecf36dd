/** Everything that can go wrong, said plainly, each with a way out. */
import type { ErrorBody, MicrophoneProblem, SessionEnd } from "../lib";
import type { ApiError } from "./api";

export interface Advice {
  title: string;
  remedy: string;
  /** Label of the button that tries again; none when trying again cannot help. */
  action?: string;
}

const SESSION_ADVICE: Readonly<Record<string, Advice>> = {
  capacity: {
    title: "Every seat is taken",
    remedy: "The server talks to as many people as it can keep smooth. It will try again for you.",
  },
  model_loading: {
    title: "The model is still loading",
    remedy: "This takes a moment after the server starts. The page reconnects by itself.",
  },
  server_draining: {
    title: "The server restarts",
    remedy: "The page reconnects by itself as soon as it is back.",
  },
  avatar_not_found: {
    title: "That portrait is gone",
    remedy: "It may have been deleted. Choose another one from the gallery.",
  },
  origin_not_allowed: {
    title: "This address may not use the server",
    remedy: "Open the page from the server's own address, or allow this origin in its settings.",
  },
  idle_timeout: {
    title: "Still there?",
    remedy: "The session was closed after a long silence.",
    action: "Wake it up",
  },
  max_duration: {
    title: "Time is up",
    remedy: "Sessions have a maximum length on this server. A new one starts at once.",
    action: "Start again",
  },
  slow_client: {
    title: "The connection was too slow",
    remedy: "Frames arrived faster than they could be shown. Close other heavy tabs or downloads.",
    action: "Try again",
  },
  engine_failed: {
    title: "The model stumbled",
    remedy: "The server reports an engine error; its log says more. Reconnecting.",
  },
};

export function endAdvice(end: SessionEnd): Advice {
  const known = SESSION_ADVICE[end.error?.code ?? ""];
  if (known) return known;
  if (end.closeCode === 4409) {
    return {
      title: "Open in another window",
      remedy: "A newer window took this session over.",
      action: "Use it here",
    };
  }
  return {
    title: "The session ended",
    remedy: end.error
      ? sentence(end.error.message)
      : `The server closed the connection (code ${end.closeCode}).`,
    action: "Start again",
  };
}

export function reconnectAdvice(error: ErrorBody | null): Advice {
  const known = SESSION_ADVICE[error?.code ?? ""];
  if (known) return { ...known, action: "Try now" };
  return {
    title: "The connection is lost",
    action: "Try now",
    remedy: error ? sentence(error.message) : "Check that the server runs and the network is up.",
  };
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

const MICROPHONE_ADVICE: Readonly<Record<MicrophoneProblem, string>> = {
  denied: "The microphone is blocked. Allow it in the address bar, then press the button again.",
  missing: "No microphone was found. Plug one in, or try one of the recordings.",
  busy: "Another program holds the microphone. Close it there, then press the button again.",
  insecure: "Browsers give the microphone only to https:// or localhost. Open the page there.",
  unsupported: "This browser cannot record here. A current Chrome, Edge, Firefox or Safari can.",
};

export function microphoneAdvice(problem: MicrophoneProblem): string {
  return MICROPHONE_ADVICE[problem];
}

/** The server's message already names the fault and its remedy; only silence needs words. */
export function uploadAdvice(error: ApiError): string {
  if (error.code === "unreachable") return `${UNREACHABLE.title}. ${UNREACHABLE.remedy}`;
  return sentence(error.message);
}

/** The server's messages are clauses; on the page they are sentences. */
export function sentence(message: string): string {
  const text = message.trim();
  const ended = /[.!?]$/.test(text) ? text : `${text}.`;
  return ended.charAt(0).toUpperCase() + ended.slice(1);
}
