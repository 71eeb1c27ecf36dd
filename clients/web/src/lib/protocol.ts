// Made by scripts/generate_protocol.py from the server's definition. Do not edit.

export const SUBPROTOCOL = "avatar.v1";
export const TOKEN_SUBPROTOCOL_PREFIX = "avatar.auth.";
export const ENDPOINT = "/v1/realtime/avatar";
export const PROTOCOL_VERSION = 1;
/** Length of the binary header in bytes; little endian. */
export const HEADER_BYTES = 32;
/** Where each field of the binary header begins. */
export const HEADER_OFFSETS = {
  /** u8: what the message carries */
  kind: 0,
  /** u8: bits; unknown ones are ignored */
  flags: 1,
  /** u16: 32; a receiver skips what is beyond */
  header_len: 2,
  /** u32: counts the binary messages of one direction, wraps */
  seq: 4,
  /** u64: place on the session's timeline; ignored in AUDIO_IN */
  pts_us: 8,
  /** u32: grows by one at every cancel; ignored in AUDIO_IN */
  epoch: 16,
  /** u32: index of the response, 0 for idle; ignored in AUDIO_IN */
  response: 20,
  /** u32: bytes of audio after the header */
  audio_len: 24,
  /** u32: bytes of video after the audio */
  video_len: 28,
} as const;

/** What a binary message carries. */
export const Kind = {
  /** client to server: pcm16 of the open utterance */
  AudioIn: 1,
  /** server to client: one frame and its sound */
  Media: 2,
  /** server to client: the initialisation segment of fmp4, before its media */
  CodecConfig: 3,
  /** server to client: one frame as a fragment of fmp4, and its sound */
  Fmp4: 4,
} as const;

/** Bits of a media message. */
export const Flag = {
  /** the picture can be decoded alone */
  Keyframe: 1,
  /** first frame of its response */
  First: 2,
  /** last frame of its response */
  Last: 4,
  /** nobody speaks; the sound is silence */
  Idle: 8,
  /** first frame of an epoch, or after a resume: do not predict from before */
  Discontinuity: 16,
} as const;

/** Why a socket was closed, and what a client does about it. */
export const CLOSE_CODES: Readonly<Record<number, { meaning: string; client: string }>> = {
  1000: { meaning: "Done, after `session.close`", client: "stop" },
  1001: { meaning: "The other side goes away", client: "resume or open a new session" },
  1003: { meaning: "An event came as a binary message", client: "fix the client" },
  1006: { meaning: "The connection was lost (never on the wire)", client: "resume now" },
  1007: { meaning: "Too many wrong messages", client: "fix the client" },
  1009: { meaning: "A message was too large", client: "fix the client" },
  1011: { meaning: "The session failed in the server", client: "retry with backoff" },
  1012: { meaning: "The server drains or restarts", client: "resume now" },
  4400: { meaning: "The protocol was not kept", client: "do not retry" },
  4401: { meaning: "Token missing, wrong or expired", client: "do not retry with the same token" },
  4403: { meaning: "Not allowed", client: "do not retry" },
  4404: { meaning: "No such avatar or session", client: "do not retry" },
  4408: { meaning: "Idle, or too slow", client: "open a new session" },
  4409: { meaning: "Taken over by a newer connection", client: "stop" },
  4410: { meaning: "The longest duration was reached", client: "open a new session" },
  4429: { meaning: "Full or over quota; see `retry_after_s`", client: "retry later" },
  4503: { meaning: "The model is still loading", client: "retry later" },
};

export type AvatarState = "idle" | "listening" | "speaking";

export type Degradation = "steps" | "size" | "fps";

export type DropReason = "slow_client" | "late";

export type ExpiryReason = "server_draining" | "engine_restarting" | "max_duration" | "idle";

export type IdlePolicy = "generate" | "loop" | "freeze";

export type OnDisconnect = "hold" | "end";

export type ResponseStatus = "completed" | "cancelled" | "failed";

export type VideoFormat = "h264" | "jpeg" | "fmp4" | "none";

export type ErrorTypeName =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "not_found_error"
  | "rate_limit_error"
  | "capacity_error"
  | "engine_error"
  | "server_error";

export type ErrorCodeName =
  | "invalid_json"
  | "invalid_event"
  | "invalid_frame"
  | "unsupported_data"
  | "invalid_audio"
  | "invalid_sample_rate"
  | "invalid_image"
  | "invalid_avatar_id"
  | "unsupported_value"
  | "immutable_field"
  | "session_not_configured"
  | "session_update_timeout"
  | "unsupported_protocol"
  | "message_too_large"
  | "too_many_errors"
  | "input_buffer_empty"
  | "input_buffer_overflow"
  | "input_rate_exceeded"
  | "response_not_found"
  | "avatar_not_found"
  | "avatar_read_only"
  | "consent_required"
  | "missing_token"
  | "invalid_token"
  | "token_expired"
  | "origin_not_allowed"
  | "not_permitted"
  | "rate_limited"
  | "quota_exceeded"
  | "capacity"
  | "model_loading"
  | "engine_failed"
  | "engine_restarting"
  | "server_draining"
  | "idle_timeout"
  | "max_duration"
  | "slow_client"
  | "invalid_resume_handle"
  | "resume_expired"
  | "resume_elsewhere"
  | "taken_over"
  | "session_ended"
  | "internal_error";

/** Format of the caller's audio: signed 16-bit little-endian mono. */
export interface InputAudio {
  format?: "pcm16";
  /** Sample rate in Hz; the avatar's voice comes back at the same. */
  rate?: number;
}

/** What the client wants back. What is in force is said by session.updated. */
export interface OutputMedia {
  /**
   * h264: Annex B access units; jpeg: one picture a message; fmp4: fragments for Media Source
   * Extensions; none: sound and timing only.
   */
  video?: VideoFormat;
  audio?: "pcm16";
  /**
   * Pictures a second, one of `output.fps` of session.created; sound comes with every frame of 40
   * ms all the same. Default: 25.
   */
  fps?: number | null;
  /**
   * Pixels, even, within `output` of session.created. One side is enough: pictures keep the model's
   * shape. Default: the model's own size.
   */
  width?: number | null;
  /** As `width`. */
  height?: number | null;
  /** Of JPEG pictures; other formats keep their own. */
  quality?: number;
}

/**
 * The body of session.update. The first one names an avatar or brings an image; later ones change
 * `idle` and `on_disconnect` only, and leave the rest out or as it is.
 */
export interface SessionSettings {
  /** An id of GET /v1/avatars. */
  avatar_id?: string | null;
  /** A JPEG, PNG or WebP file as base64; never an address. */
  image?: string | null;
  /**
   * The person in `image` has agreed. Servers may refuse an image without it (`consent_required`).
   */
  consent?: boolean;
  /**
   * A text for models with `features.prompt`; others say in `warnings` that they do not follow it.
   */
  prompt?: string | null;
  /** The same seed and speech give the same frames. */
  seed?: number;
  /** Default: pcm16 at 16,000 Hz. */
  input_audio?: InputAudio;
  /** Default: h264 with pcm16. */
  output?: OutputMedia;
  /**
   * What is shown while nobody speaks: frames made on silence, a stretch of them there and back, or
   * the last frame. Default: generate.
   */
  idle?: IdlePolicy;
  /** hold keeps the session for `resume.ttl_s` after the socket was lost. Default: end. */
  on_disconnect?: OnDisconnect;
}

/** What the server enforces, told before it is. */
export interface Limits {
  /** Of one client message. */
  max_message_bytes: number;
  /** Audio accepted ahead of the engine; more is refused whole. */
  max_buffered_input_ms: number;
  /** From its place on; then the session ends with 4410. */
  max_session_s: number;
  /** So long without a client event or speech, then 4408. */
  idle_timeout_s: number;
  /** Media sent and not acknowledged by playback.update. */
  max_inflight_ms: number;
  /** So long without credit or reading, then 4408. */
  slow_client_s?: number;
  /** Seconds of audio accepted per second, beyond a first buffer full. */
  max_input_rate?: number;
}

/** The engine's granularity. */
export interface Timing {
  /** Frames a second. */
  fps: number;
  /** New frames of the longest chunk. */
  chunk_frames: number;
  /** Speech that the longest chunk covers. */
  chunk_ms: number;
  /** Median from first audio to first frame sent; null until measured. */
  first_frame_ms_p50?: number | null;
}

/** What `output` of session.update may ask for. */
export interface OutputOffer {
  /** Formats. */
  video: string[];
  /** Pictures a second, the default first. */
  fps: number[];
  /** Of the model's own pictures, in pixels. */
  width: number;
  /** Of the model's own pictures, in pixels. */
  height: number;
  min_width: number;
  max_width: number;
  min_height: number;
  max_height: number;
}

/** What the model can do, of what not every model can. */
export interface Features {
  /** Whether `prompt` of session.update is followed. */
  prompt: boolean;
  /** Whether the avatar looks different while it listens. */
  listening: boolean;
}

/** How to come back after a lost connection. */
export interface ResumeOffer {
  /** For session.resume; signed and opaque. A secret. */
  handle: string;
  /** How long a lost session is kept. */
  ttl_s: number;
}

/** The media that is really sent. */
export interface EffectiveOutput {
  video: VideoFormat;
  /** RFC 6381 string for VideoDecoder or MediaSource; jpeg; none. */
  codec: string;
  audio: string;
  /** Hz; always the input's. */
  audio_rate: number;
  /** Pictures a second. */
  fps: number;
  /** Pixels. */
  width: number;
  /** Pixels. */
  height: number;
  quality: number;
}

/** What is in force, which may differ from what was asked for. */
export interface EffectiveSettings {
  avatar_id: string | null;
  input_audio: InputAudio;
  output: EffectiveOutput;
  idle: IdlePolicy;
  on_disconnect: OnDisconnect;
  seed: number;
  /** What about the picture may hurt the result; what is not followed. */
  warnings: string[];
}

/** What went wrong; also the body of HTTP errors. */
export interface ErrorBody {
  /** Whose fault and what kind; see the error types. */
  type: string;
  /** What exactly; see the error codes. */
  code: string;
  /** For people; its wording may change. */
  message: string;
  /** The field, as a dotted path. */
  param?: string | null;
  /** Of the client event. */
  event_id?: string | null;
  /** The same may work later, without a change. */
  retryable?: boolean;
  /** How long to wait at least. */
  retry_after_s?: number | null;
}

/**
 * First event of a new session; later only `idle` and `on_disconnect` may change.
 *
 * Answered by session.updated.
 */
export interface SessionUpdate {
  type: "session.update";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  session: SessionSettings;
}

/**
 * First event on a new socket for a session that lost its own. Answered by session.resumed.
 *
 * The handle alone is the right to the session: whoever sends it takes over, and an older socket
 * that is still open is closed with 4409.
 */
export interface SessionResume {
  type: "session.resume";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** `resume.handle` of session.created. */
  handle: string;
  /** `seq` of the last media message received; null for none. */
  last_seq?: number | null;
  /** `event_id` of the last event received; later ones are sent again. */
  last_event_id?: string | null;
}

/** Speech for the open utterance; the base64 twin of the binary AUDIO_IN message. */
export interface AudioAppend {
  type: "input_audio_buffer.append";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** pcm16 as base64, whole samples. */
  audio: string;
  /** Name of a response; the client may choose it with the first audio. */
  response_id?: string | null;
}

/** End of the utterance. Answered by input_audio_buffer.committed. */
export interface AudioCommit {
  type: "input_audio_buffer.commit";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** Name of a response; the client may choose it with the first audio. */
  response_id?: string | null;
}

/**
 * Drop what the engine has not taken of the open utterance.
 *
 * Answered by input_audio_buffer.cleared.
 */
export interface AudioClear {
  type: "input_audio_buffer.clear";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
}

/**
 * Barge-in. With an id that response and all later ones end, without one everything.
 *
 * Never an error, also when nothing is said. Answered by output.cleared and the response.done of
 * what was open.
 */
export interface ResponseCancel {
  type: "response.cancel";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** Name of a response; the client may choose it with the first audio. */
  response_id?: string | null;
  /**
   * The client goes on playing for so long, its sound fading to silence, and the face goes on from
   * there. Bounded to 0..500; default 0.
   */
  fade_ms?: number | null;
}

/** What the avatar does while it does not speak. Answered by avatar.state_changed on change. */
export interface SetState {
  type: "avatar.set_state";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  state: "idle" | "listening";
}

/** The client's decoder lost its thread: the next frame made can be decoded alone. */
export interface RequestKeyframe {
  type: "output.request_keyframe";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
}

/** Where the client's playback stands, every 250 to 500 ms; the credit of the flow control. */
export interface PlaybackUpdate {
  type: "playback.update";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** The frame on screen. */
  pts_us: number;
  /** `seq` of the last media message received. */
  seq?: number;
  /** Media received and not shown. */
  buffered_ms?: number;
  /** Times that media came too late, in all. */
  underruns?: number;
  /** Video behind sound, if the client measures it. */
  skew_ms?: number | null;
}

/** Round trip and clock offset. Answered by session.pong. */
export interface SessionPing {
  type: "session.ping";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** Comes back as it is. */
  t?: number | string | null;
}

/** Leave. The server closes with 1000. */
export interface SessionClose {
  type: "session.close";
  /** Chosen by the client; replies carry it as `source_event_id`. */
  event_id?: string | null;
  /** Speak what was committed to its end first. */
  drain?: boolean;
}

/** The server's greeting: what counts for a session that is opened here. */
export interface SessionCreated {
  type: "session.created";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  session_id: string;
  protocol?: number;
  server_version: string;
  engine: string;
  model: string;
  limits: Limits;
  timing: Timing;
  /** What session.update may ask for. */
  output?: OutputOffer;
  features?: Features;
  /** null when this server holds no sessions. */
  resume?: ResumeOffer | null;
}

/**
 * All places are taken; the client waits for one. Repeated when something changes.
 *
 * Comes after session.update and before session.loading. A client that does not want to wait
 * leaves.
 */
export interface SessionQueued {
  type: "session.queued";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  /** 1 is next. */
  position: number;
  /** Estimate; null when nobody can tell. */
  eta_s?: number | null;
}

/** The avatar is being prepared. */
export interface SessionLoading {
  type: "session.loading";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  /** avatar, or another of later versions. */
  stage: string;
  /** 0 to 1, by steps and not by time. */
  progress: number;
}

/** The settings in force. After the first one the avatar lives and frames flow. */
export interface SessionUpdated {
  type: "session.updated";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  session: EffectiveSettings;
}

/** The session goes on on this socket; what is still in time is sent again first. */
export interface SessionResumed {
  type: "session.resumed";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  session_id: string;
  /** `seq` of the next media message. */
  from_seq: number;
  /** Frames sent after `last_seq` that will not come again. */
  lost_frames: number;
  epoch: number;
  /** `pts_us` of the next media message. */
  from_pts_us: number;
  /** The settings, as before. */
  session: EffectiveSettings;
  /** The handle for the next time. */
  resume: ResumeOffer;
  /** `seq` of the last AUDIO_IN taken: send again what came after it. */
  received_seq?: number | null;
}

/** Audio has come; at most twice a second. */
export interface AudioAppended {
  type: "input_audio_buffer.appended";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  /** Of the open utterance, so far. */
  received_ms: number;
  /** Not consumed by the engine, of all. */
  buffered_ms: number;
}

/** The utterance has its end. */
export interface AudioCommitted {
  type: "input_audio_buffer.committed";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  response_id: string;
  duration_ms: number;
}

/** What was dropped of the open utterance. */
export interface AudioCleared {
  type: "input_audio_buffer.cleared";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  dropped_ms: number;
}

/** An utterance has begun with its first audio. */
export interface ResponseCreated {
  type: "response.created";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  response_id: string;
  /** Counts responses from 1; stands in the header of their frames. */
  response_index: number;
}

/** Directly before the first frame of a response. */
export interface ResponseStarted {
  type: "response.started";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  response_id: string;
  /** Counts responses from 1; stands in the header of their frames. */
  response_index: number;
  /** Of its first frame. */
  pts_us: number;
}

/** Exactly one for every response.created. */
export interface ResponseDone {
  type: "response.done";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  response_id: string;
  /** Counts responses from 1; stands in the header of their frames. */
  response_index: number;
  status: ResponseStatus;
  /** Made by the engine. */
  generated_ms: number;
  /** Sent to the client. */
  sent_ms: number;
  /** Shown, by the client's word; null for one that never says. */
  played_ms: number | null;
  /** Why it did not complete. */
  reason?: string | null;
}

/** What the avatar does from a place of the timeline on. */
export interface StateChanged {
  type: "avatar.state_changed";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  state: AvatarState;
  /** A place on the session's media timeline, in microseconds. */
  pts_us: number;
}

/** A cancel took effect: discard all media of a lower epoch now. */
export interface OutputCleared {
  type: "output.cleared";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  /** Of all media from here on. */
  epoch: number;
  /** Of the next frame; show it as soon as it is there. */
  from_pts_us: number;
  /** First play what is there for so long, fading to silence. */
  fade_ms?: number;
  /** The last frame seen, as far as the server knows; the face goes on there */
  shown_pts_us?: number | null;
}

/** Pictures were left out, and the sound of those frames was sent all the same. */
export interface OutputDropped {
  type: "output.dropped";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  /** Since the last such event. */
  frames: number;
  reason: DropReason;
}

/** How the engine keeps up; every few seconds. */
export interface SessionStats {
  type: "session.stats";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  /** Time to make frames over the time that they play; below 1 is good. */
  rtf: number | null;
  gen_fps: number;
  /** Media made and not sent. */
  queue_ms: number;
  /** Of one frame. */
  encode_ms: number;
  /** Pictures left out so far. */
  dropped: number;
  /** What was lowered to keep up, by the server's policy. */
  degraded?: Degradation[];
  /** Denoising steps in use. */
  num_steps?: number;
  width?: number;
  height?: number;
  fps?: number;
}

/** The session will end, and when. Sent before every end that the server decides. */
export interface SessionExpiring {
  type: "session.expiring";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  reason: ExpiryReason;
  /** Seconds from now. */
  deadline_s: number;
  /** Whether session.resume will work after it, on another replica. */
  resumable?: boolean;
}

/** The answer to session.ping. */
export interface SessionPong {
  type: "session.pong";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  t: number | string | null;
  /** The server's monotonic clock. */
  server_time_us: number;
}

/** Something was refused or broke. The socket stays open unless the code has a close code. */
export interface ErrorEvent {
  type: "error";
  /** Unique in the session; stamped on sending. */
  event_id: string;
  /** `event_id` of the client event that this answers. */
  source_event_id?: string;
  error: ErrorBody;
}

/** What a client may say. */
export type ClientEvent =
  | SessionUpdate
  | SessionResume
  | AudioAppend
  | AudioCommit
  | AudioClear
  | ResponseCancel
  | SetState
  | RequestKeyframe
  | PlaybackUpdate
  | SessionPing
  | SessionClose;

/** What the server says; types of later versions come, too, and are ignored. */
export type ServerEvent =
  | SessionCreated
  | SessionQueued
  | SessionLoading
  | SessionUpdated
  | SessionResumed
  | AudioAppended
  | AudioCommitted
  | AudioCleared
  | ResponseCreated
  | ResponseStarted
  | ResponseDone
  | StateChanged
  | OutputCleared
  | OutputDropped
  | SessionStats
  | SessionExpiring
  | SessionPong
  | ErrorEvent;
