/** The public surface of the visavis web client; README.md explains it. */
export type { PictureFormat } from "./decoder";
export {
  AvatarError,
  CapacityError,
  ConnectionLostError,
  ExpiredError,
  errorFromBody,
  NotFoundError,
  PermissionError,
  ProtocolError,
  REMEDIES,
  ServerError,
  SpeechLostError,
  TakenOverError,
} from "./errors";
export type { Face, FaceImage } from "./face";
export { MicrophoneError, type MicrophoneProblem } from "./microphone";
export type { PictureSize, SessionChanges, SessionEvents, SessionOptions } from "./options";
export type { ShownFrame } from "./player";
export type {
  ClientEvent,
  EffectiveSettings,
  ErrorBody,
  ErrorCodeName,
  ExpiryReason,
  Features,
  IdlePolicy,
  Limits,
  OnDisconnect,
  OutputOffer,
  ResponseStatus,
  ServerEvent,
  SessionSettings,
  Timing,
} from "./protocol";
export type { Recorder, RecorderEvents, Recording, RecordingOptions } from "./recorder";
export { decodeRecording, RecordingError } from "./recording";
export type { BackoffOptions } from "./retry";
export { type AvatarSession, connect } from "./session";
export type { SessionStats } from "./stats";
export type { Activity, AvatarStatus, ServerFacts } from "./status";
export type { MicrophoneMode } from "./utterance";
export type { VoiceInput } from "./voice-input";
