/** JSON events of the wire protocol. Unknown types and fields are ignored, as the protocol asks. */

export type VideoFormat = "h264" | "jpeg";

export interface SessionUpdate {
  avatar_id: string;
  seed?: number;
  input_audio: { format: "pcm16"; rate: number };
  output: { video: VideoFormat; audio: "pcm16" };
  idle?: "generate" | "loop" | "freeze";
  on_disconnect?: "hold" | "end";
}

export type ClientEvent =
  | { type: "session.update"; session: SessionUpdate }
  | { type: "input_audio_buffer.commit" }
  | { type: "input_audio_buffer.clear" }
  | { type: "response.cancel" }
  | { type: "avatar.set_state"; state: "idle" | "listening" }
  | {
      type: "playback.update";
      seq: number;
      pts_us: number;
      buffered_ms: number;
      underruns: number;
      skew_ms: number;
    }
  | { type: "session.ping"; t: number }
  | { type: "session.close"; drain: boolean };

/** What went wrong, in the words of the server. */
export interface ErrorBody {
  type: string;
  code: string;
  message: string;
  param?: string | null;
  retryable?: boolean;
  retry_after_s?: number | null;
}

export interface SessionLimits {
  max_message_bytes?: number;
  max_buffered_input_ms?: number;
  max_session_s?: number;
  idle_timeout_s?: number;
  max_inflight_ms?: number;
}

export interface SessionTiming {
  fps?: number;
  chunk_frames?: number;
  chunk_ms?: number;
  first_frame_ms_p50?: number;
}

/** What is in force, which may differ from what was asked for. */
export interface EffectiveSettings {
  avatar_id?: string | null;
  input_audio?: { format?: string; rate?: number };
  output?: { video?: string; codec?: string; fps?: number; width?: number; height?: number };
  warnings?: string[];
}

export type ServerEvent =
  | {
      type: "session.created";
      session_id: string;
      protocol: number;
      model?: string;
      limits?: SessionLimits;
      timing?: SessionTiming;
    }
  | { type: "session.updated"; session?: EffectiveSettings }
  | { type: "session.queued"; position: number; eta_s: number }
  | { type: "session.loading"; stage: string; progress: number }
  | { type: "session.expiring"; reason: string; deadline_s: number; resumable?: boolean }
  | { type: "session.pong"; t: number }
  | {
      type: "session.stats";
      rtf?: number;
      gen_fps?: number;
      queue_ms?: number;
      encode_ms?: number;
      dropped?: number;
    }
  | { type: "input_audio_buffer.appended"; received_ms: number; buffered_ms: number }
  | { type: "input_audio_buffer.committed"; response_id: string; duration_ms: number }
  | { type: "input_audio_buffer.cleared"; dropped_ms: number }
  | { type: "response.created"; response_id: string; response_index?: number }
  | { type: "response.started"; response_id: string; response_index?: number; pts_us?: number }
  | {
      type: "response.done";
      response_id: string;
      response_index?: number;
      status: "completed" | "cancelled" | "failed";
      reason?: string | null;
      generated_ms?: number;
      sent_ms?: number;
    }
  | { type: "avatar.state_changed"; state: "idle" | "listening" | "speaking"; pts_us: number }
  | { type: "output.cleared"; epoch: number; from_pts_us: number }
  | { type: "output.dropped"; frames: number; reason: string }
  | { type: "error"; error: ErrorBody };
