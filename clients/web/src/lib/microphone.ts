/** The microphone as a stream of 20 ms PCM16 blocks, echo-cancelled where the browser can. */
import workletUrl from "./capture.worklet.ts?worker&url";
import { AvatarError } from "./errors";

export type MicrophoneProblem = "denied" | "missing" | "busy" | "insecure" | "unsupported";

/** Its code is `microphone_` and the problem. */
export class MicrophoneError extends AvatarError {
  override name = "MicrophoneError";

  constructor(
    readonly problem: MicrophoneProblem,
    message: string,
  ) {
    super({ code: `microphone_${problem}`, message });
  }
}

const PROBLEMS: Readonly<Record<string, MicrophoneProblem>> = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
};

export class Microphone {
  #stream: MediaStream | null = null;
  #context: AudioContext | null = null;

  constructor(
    readonly sampleRate: number,
    readonly onBlock: (pcm: Int16Array) => void,
  ) {}

  get active(): boolean {
    return this.#stream !== null;
  }

  /** Call from a user gesture. Throws MicrophoneError. */
  async start(): Promise<void> {
    if (this.#stream) return;
    this.#stream = await openStream();
    try {
      const context = new AudioContext();
      this.#context = context;
      await context.audioWorklet.addModule(workletUrl);
      const capture = new AudioWorkletNode(context, "visavis-capture", {
        numberOfOutputs: 0,
        processorOptions: { sampleRate: this.sampleRate },
      });
      capture.port.onmessage = ({ data }: MessageEvent<Int16Array>) => {
        // What was on its way when the microphone was closed would begin an utterance without end.
        if (this.active) this.onBlock(data);
      };
      context.createMediaStreamSource(this.#stream).connect(capture);
      await context.resume();
    } catch (error) {
      await this.stop();
      throw new MicrophoneError("unsupported", String(error));
    }
  }

  async stop(): Promise<void> {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = null;
    const context = this.#context;
    this.#context = null;
    await context?.close();
  }
}

async function openStream(): Promise<MediaStream> {
  if (!window.isSecureContext) {
    throw new MicrophoneError("insecure", "microphones need https:// or localhost");
  }
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new MicrophoneError("unsupported", "this browser offers no microphone");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: {
        channelCount: 1,
        echoCancellation: true,
        noiseSuppression: true,
        autoGainControl: true,
      },
    });
  } catch (error) {
    const name = error instanceof DOMException ? error.name : "";
    throw new MicrophoneError(PROBLEMS[name] ?? "unsupported", String(error));
  }
}
