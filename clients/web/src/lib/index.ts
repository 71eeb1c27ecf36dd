/** The public surface of the visavis web client. */
export { AudioOutput } from "./audio-output";
export { AvatarClient, type AvatarState, type ClientOptions } from "./client";
export { Decoder, supportsH264 } from "./decoder";
export type {
  ClientEvent,
  EffectiveSettings,
  ErrorBody,
  ServerEvent,
  VideoFormat,
} from "./events";
export { EnergyGate } from "./gate";
export { PlaybackMetrics, Window } from "./metrics";
export { Microphone, MicrophoneError, type MicrophoneProblem } from "./microphone";
export { Player, type ShownFrame } from "./player";
export { Playout } from "./playout";
export { decodeRecording, RecordingError, RecordingFeeder } from "./recording";
export { AvatarSession, type SessionEnd, type SessionState } from "./session";
export { type MicrophoneMode, UtteranceDetector } from "./utterance";
export { decodeFrame, encodeFrame, Flag, Kind, WireError, type WireFrame } from "./wire";
