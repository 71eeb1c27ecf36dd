/**
 * What is seen and heard of a session: the player, the utterances as the viewer sees them, and what
 * the server is told of both.
 */
import type { Connection } from "./connection";
import { DEFAULT_H264_CODEC, type PictureFormat } from "./decoder";
import { Emitter } from "./emitter";
import { Feedback } from "./feedback";
import type { SessionEvents } from "./options";
import { Player, type ShownFrame } from "./player";
import type { EffectiveSettings, ServerEvent } from "./protocol";
import { Speech } from "./speech";
import type { WireFrame } from "./wire";

export interface ViewerEvents extends Pick<SessionEvents, "shown" | "firstFrame" | "finished"> {
  /** What a face does may have changed. */
  moved: ShownFrame;
}

export class Viewer extends Emitter<ViewerEvents> {
  readonly player: Player;
  readonly speech = new Speech();
  readonly feedback: Feedback;

  constructor(
    canvas: HTMLCanvasElement,
    sampleRate: number,
    /** The connection in use, if there is one. */
    readonly connection: () => Connection | null,
  ) {
    super();
    this.player = new Player(canvas, sampleRate);
    this.feedback = new Feedback(this.player, connection);
    this.player.on("shown", (frame) => this.#onShown(frame));
    this.player.on("lostThread", () => this.requestKeyframe());
  }

  /** Asks for a picture that can be decoded alone. */
  requestKeyframe(): void {
    this.connection()?.tell({ type: "output.request_keyframe" });
  }

  receive(frame: WireFrame): void {
    this.feedback.received(frame.seq);
    this.player.push(frame);
  }

  /** A new session begins: `fps` is that of its timeline, also where fewer pictures come. */
  start({ output }: EffectiveSettings, picture: PictureFormat, fps?: number): void {
    const codec = picture === "h264" && output.codec ? output.codec : DEFAULT_H264_CODEC;
    this.player.configure(picture, codec, fps);
    this.#newTimeline();
  }

  /** The session goes on: it knows only what it was told before its connection was lost. */
  goOn(): void {
    this.tellListening();
    this.feedback.acknowledge();
  }

  tellListening(): void {
    const state = this.speech.listening ? "listening" : "idle";
    this.connection()?.tell({ type: "avatar.set_state", state });
  }

  /** Cuts off what is heard and seen, as far as it is there. */
  cut(fadeMs: number): void {
    this.player.stop(fadeMs / 1000);
    // The server rewinds the face to the last frame seen: say which one that was.
    this.feedback.acknowledge();
    this.connection()?.command({ type: "response.cancel", fade_ms: fadeMs });
    this.speech.turns.silence();
  }

  /** Nothing more comes of the session. */
  leave(): void {
    this.player.audio.stop();
    this.#newTimeline();
  }

  follow(event: ServerEvent): void {
    const { turns } = this.speech;
    switch (event.type) {
      case "response.created":
        // One that is said again after a resume may be of what was cut off meanwhile.
        if (!this.connection()?.cancelling) this.player.unmute();
        break;
      case "output.cleared":
        this.player.clear(event.epoch, (event.fade_ms ?? 0) / 1000);
        turns.silence();
        break;
      case "session.pong":
        this.feedback.pong(event.t);
        break;
      case "response.done":
        if (event.status === "completed") {
          turns.completed(event.response_index, this.feedback.lastSeq);
          break;
        }
        // A failed response may never show a frame: nobody shall wait for it.
        if (event.status === "failed") turns.failed();
        if (event.reason === "input_cleared") turns.withdrawn();
        turns.silence();
        this.emit("finished", { response: event.response_index, status: event.status });
        break;
      default:
        break;
    }
  }

  #onShown(frame: ShownFrame): void {
    this.feedback.shown(frame);
    this.emit("shown", frame);
    const { firstFrameMs, finished } = this.speech.turns.shown(frame, performance.now());
    if (firstFrameMs !== null) this.emit("firstFrame", firstFrameMs);
    for (const response of finished) this.emit("finished", { response, status: "completed" });
    this.emit("moved", frame);
  }

  #newTimeline(): void {
    this.speech.turns.newTimeline();
    this.feedback.newTimeline();
  }
}
