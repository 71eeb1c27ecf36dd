/**
 * Everything that can go wrong in a session, as one class with one subclass per way out. Each error
 * carries the server's code where there is one, and a remedy in words for people.
 */
import type { ErrorBody, ErrorCodeName } from "./protocol";

export interface AvatarErrorDetails {
  /** The server's `error.code`, or one of this library: `connection_lost`, `video_failed`... */
  code: string;
  message: string;
  /** The same may work later without a change. */
  retryable?: boolean;
  retryAfterS?: number | null;
  /** The field at fault, as a dotted path. */
  param?: string | null;
  /** WebSocket close code, when the socket was closed for it. */
  closeCode?: number | null;
}

/** Base class: `catch (error) { if (error instanceof AvatarError) show(error.remedy) }`. */
export class AvatarError extends Error {
  override name = "AvatarError";
  readonly code: string;
  readonly retryable: boolean;
  readonly retryAfterS: number | null;
  readonly param: string | null;
  readonly closeCode: number | null;

  constructor(details: AvatarErrorDetails) {
    super(details.message);
    this.code = details.code;
    this.retryable = details.retryable ?? false;
    this.retryAfterS = details.retryAfterS ?? null;
    this.param = details.param ?? null;
    this.closeCode = details.closeCode ?? null;
  }

  /** The same for a socket that was closed for it after it was announced. */
  withCloseCode(closeCode: number): AvatarError {
    const kind = BY_CLOSE_CODE[closeCode] ?? (this.constructor as ErrorClass);
    return new kind({ ...this, message: this.message, closeCode });
  }

  /** What a person can do about it, one sentence. */
  get remedy(): string {
    return REMEDIES[this.code as ErrorCodeName | LocalCode] ?? "Open a new session.";
  }
}

/** The network or the server went away; the session tries to come back by itself. */
export class ConnectionLostError extends AvatarError {
  override name = "ConnectionLostError";
}

/** No place, or over quota, or the model still loads: later is better. */
export class CapacityError extends AvatarError {
  override name = "CapacityError";
}

/** Token missing, wrong, expired, or not good for this. */
export class PermissionError extends AvatarError {
  override name = "PermissionError";
}

/** The avatar, or the session to resume, does not exist. */
export class NotFoundError extends AvatarError {
  override name = "NotFoundError";
}

/** A limit that was announced was reached: idle, too long, too slow. */
export class ExpiredError extends AvatarError {
  override name = "ExpiredError";
}

/** A newer connection took the session over. */
export class TakenOverError extends AvatarError {
  override name = "TakenOverError";
}

/** Server and client do not agree on the protocol, or on a value: a bug on one side. */
export class ProtocolError extends AvatarError {
  override name = "ProtocolError";
}

/** The model or the server failed. */
export class ServerError extends AvatarError {
  override name = "ServerError";
}

/** A session was lost for good, and with it what it had been told and not yet said. */
export class SpeechLostError extends AvatarError {
  override name = "SpeechLostError";

  constructor(
    /** Milliseconds of speech that were taken and not heard. */
    readonly speechMs: number,
    /** Types of the commands that the server did not answer. */
    readonly commands: readonly string[],
  ) {
    const undone = commands.length > 0 ? `, and ${commands.join(", ")} may not have arrived` : "";
    super({
      code: "speech_lost",
      message:
        `the session could not be resumed: ${(speechMs / 1000).toFixed(1)} s of speech ` +
        `were not said${undone}`,
    });
  }
}

type ErrorClass = new (details: AvatarErrorDetails) => AvatarError;

const BY_CLOSE_CODE: Readonly<Record<number, ErrorClass>> = {
  1001: ConnectionLostError,
  1003: ProtocolError,
  1005: ConnectionLostError,
  1006: ConnectionLostError,
  1007: ProtocolError,
  1009: ProtocolError,
  1011: ServerError,
  1012: ConnectionLostError,
  4400: ProtocolError,
  4401: PermissionError,
  4403: PermissionError,
  4404: NotFoundError,
  4408: ExpiredError,
  4409: TakenOverError,
  4410: ExpiredError,
  4429: CapacityError,
  4503: CapacityError,
};

const BY_TYPE: Readonly<Record<string, ErrorClass>> = {
  invalid_request_error: ProtocolError,
  authentication_error: PermissionError,
  permission_error: PermissionError,
  not_found_error: NotFoundError,
  rate_limit_error: CapacityError,
  capacity_error: CapacityError,
  engine_error: ServerError,
  server_error: ServerError,
};

/** The `error` object of the protocol as a typed error; `closeCode` when the socket closed for it. */
export function errorFromBody(body: ErrorBody, closeCode: number | null = null): AvatarError {
  const kind =
    (closeCode === null ? undefined : BY_CLOSE_CODE[closeCode]) ??
    BY_TYPE[body.type] ??
    AvatarError;
  return new kind({
    code: body.code,
    message: body.message,
    retryable: body.retryable ?? false,
    retryAfterS: body.retry_after_s ?? null,
    param: body.param ?? null,
    closeCode,
  });
}

/** A close without an error event before it. */
export function errorFromClose(closeCode: number): AvatarError {
  const kind = BY_CLOSE_CODE[closeCode] ?? ServerError;
  const lost = kind === ConnectionLostError;
  return new kind({
    code: lost ? "connection_lost" : `closed_${closeCode}`,
    message: lost
      ? `the connection was lost (close code ${closeCode})`
      : `the server closed the connection with code ${closeCode}`,
    retryable: lost,
    closeCode,
  });
}

/** Codes that this library makes itself. */
export type LocalCode =
  | "connection_lost"
  | "video_failed"
  | "aborted"
  | "invalid_options"
  | "speech_lost"
  | "input_held_full"
  | "microphone_denied"
  | "microphone_missing"
  | "microphone_busy"
  | "microphone_insecure"
  | "microphone_unsupported"
  | "recording_unreadable"
  | "recording_too_long"
  | "recorder_busy"
  | "recorder_idle"
  | "recorder_empty"
  | "recorder_failed"
  | "recorder_unsupported";

/** A way out for every code of the protocol; the compiler sees to it that none is missing. */
export const REMEDIES: Readonly<Record<ErrorCodeName | LocalCode, string>> = {
  invalid_json: "Update the client: it sent something that is not JSON.",
  invalid_event: "Update the client: it sent an event with a wrong field.",
  invalid_frame: "Update the client: it sent a broken binary message.",
  unsupported_data: "Update the client: it sent an event as a binary message.",
  invalid_audio: "Send whole samples of mono PCM16.",
  invalid_sample_rate: "Choose a sample rate between 8,000 and 48,000 Hz.",
  invalid_image: "Use a sharp photo with one face, seen from the front.",
  invalid_avatar_id: "Choose an avatar from the list.",
  unsupported_value: "Choose a format that this server offers.",
  immutable_field: "Open a new session to change this.",
  session_not_configured: "Update the client: it spoke before it was configured.",
  session_update_timeout: "Check the network, then open a new session.",
  unsupported_protocol: "Client and server speak different versions; update the older one.",
  message_too_large: "Send smaller pieces, and photos of a few megabytes.",
  too_many_errors: "Update the client: many of its messages were wrong.",
  input_buffer_empty: "Nothing was heard. Check the microphone and speak again.",
  input_buffer_overflow: "Wait until the avatar has said what it has, then send more.",
  input_rate_exceeded: "Send audio a little slower.",
  response_not_found: "Nothing to do: that answer is over already.",
  avatar_not_found: "It may have been deleted. Choose another avatar.",
  avatar_read_only: "Built-in avatars stay; only your own can be deleted.",
  consent_required: "Confirm that the person in the photo agrees.",
  missing_token: "This server wants an access key.",
  invalid_token: "Check the access key and enter it again.",
  token_expired: "The pass has run out. Get a new one.",
  origin_not_allowed: "Open the page from an address that the server allows.",
  not_permitted: "This key does not allow it; ask for one that does.",
  rate_limited: "Too many tries in a short time. Wait a moment.",
  quota_exceeded: "This key has used up its share. Wait, or ask for more.",
  capacity: "Every place is taken. It tries again by itself.",
  model_loading: "The model is still loading; this takes a moment after a start.",
  engine_failed: "The model stumbled; the server's log says more. Try again.",
  engine_restarting: "The model restarts. It reconnects by itself.",
  server_draining: "The server restarts. It reconnects by itself.",
  idle_timeout: "Nothing was said for long. Wake it up with a new session.",
  max_duration: "The longest session time was reached. Start a new one.",
  slow_client: "Close other heavy tabs or downloads, then try again.",
  invalid_resume_handle: "Open a new session; the old one cannot be found.",
  resume_expired: "It was away for too long. Open a new session.",
  resume_elsewhere: "Another server has the session. It reconnects by itself.",
  taken_over: "Another window uses this session now. Close it, or go on here.",
  session_ended: "An administrator ended the session.",
  internal_error: "The server's log says more. Try again.",
  connection_lost: "Check that the server runs and the network is up.",
  video_failed: "This browser cannot decode the picture; update it.",
  aborted: "Open a new session.",
  invalid_options: "Give what the message asks for.",
  speech_lost: "Say it again.",
  input_held_full: "Wait until the avatar has said what it has, then send more.",
  microphone_denied: "Allow the microphone in the address bar, then try again.",
  microphone_missing: "Plug a microphone in, or use a recording.",
  microphone_busy: "Close the other program that holds the microphone, then try again.",
  microphone_insecure: "Open the page at https:// or localhost; only there browsers allow it.",
  microphone_unsupported: "Use a current Chrome, Edge, Firefox or Safari.",
  recording_unreadable: "Use a WAV, MP3 or M4A file.",
  recording_too_long: "Cut the recording and try again.",
  recorder_busy: "Stop the running recording first.",
  recorder_idle: "Start a recording first.",
  recorder_empty: "Let it run until its clock does; a recording begins with the next keyframe.",
  recorder_failed: "Record again; close other heavy tabs and programs first.",
  recorder_unsupported: "Use a current Chrome, Edge or Safari to record.",
};
