/** The page: wires the session to the gallery, the voices, the microphone and the figures. */
import "./styles/base.css";
import "./styles/stage.css";
import "./styles/panel.css";
import "./styles/voices.css";
import "./styles/vitals.css";
import {
  AvatarError,
  type AvatarSession,
  type AvatarStatus,
  connect,
  decodeRecording,
  type PictureFormat,
  type PictureSize,
  SpeechLostError,
} from "../lib";
import { accessKey, wantsKey } from "./access";
import { type Avatar, listSamples, sessionUrl } from "./api";
import { ConsentDialog } from "./consent";
import { byId } from "./dom";
import { acceptFiles } from "./drop";
import { Gallery } from "./gallery";
import { installHook, type VisavisHook } from "./hook";
import {
  complaint,
  expiringText,
  NO_PORTRAITS,
  sentence,
  statusAdvice,
  UNREACHABLE,
} from "./messages";
import { PictureSizeChoice, wantedSize } from "./picture-size";
import { RecordButton } from "./record";
import { type RecordingSource, Recordings } from "./recordings";
import { Stage } from "./stage";
import { installTabs } from "./tabs";
import { TalkControls } from "./talk";
import { Toasts } from "./toasts";
import { TypedSpeech } from "./typed";
import { Vitals } from "./vitals";

/** Errors that close the session are followed by the close within this time. */
const ERROR_SETTLES_MS = 250;
/** A server that did not answer is asked again after this. */
const RETRY_MS = 5_000;

const query = new URLSearchParams(location.search);

function wantedPicture(): PictureFormat | "auto" {
  const wanted = query.get("video");
  return wanted === "jpeg" || wanted === "h264" ? wanted : "auto";
}

/** What needs a session; it is made with the first portrait that is chosen. */
interface Live {
  session: AvatarSession;
  hook: VisavisHook;
  talk: TalkControls;
  record: RecordButton;
}

class Page {
  readonly stage = new Stage();
  readonly toasts = new Toasts(byId("toasts", HTMLElement));
  readonly stopButton = byId("stop", HTMLButtonElement);
  readonly consent = new ConsentDialog();
  readonly gallery = new Gallery(
    byId("gallery", HTMLUListElement),
    byId("photo-input", HTMLInputElement),
    {
      choose: (avatar) => this.choose(avatar),
      consent: (photo) => this.consent.ask(photo),
      failed: (error) => this.complain(complaint(error)),
    },
  );
  readonly recordings = new Recordings(
    byId("recordings", HTMLUListElement),
    byId("audio-input", HTMLInputElement),
    { play: (source) => void this.play(source), stop: () => this.stop() },
  );
  readonly pictureSize = new PictureSizeChoice((size) => void this.resize(size));
  readonly typed = new TypedSpeech({
    speak: (wav) => void this.play({ id: "typed", title: "", bytes: async () => wav }),
    failed: (message) => this.complain(message),
  });
  #live: Live | null = null;
  /** Speech frames shown of the recording that plays, and how many it will have. */
  #progress: { id: string; shown: number; total: number } | null = null;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;

  start(): void {
    installTabs(byId("voice-tabs", HTMLElement));
    this.#listenToPage();
    this.#setReady(false);
    void this.#loadPortraits();
    listSamples().then(
      (samples) => this.recordings.setSamples(samples),
      () => {},
    );
  }

  choose(avatar: Avatar): void {
    this.toasts.clear();
    this.stage.clearTrouble();
    this.stage.showAvatar(avatar);
    this.#endProgress();
    const credit = avatar.credit ? `${avatar.name}: ${sentence(avatar.credit)}` : "";
    byId("colophon-credit", HTMLElement).textContent = credit;
    if (avatar.warnings.length) this.toasts.show("info", avatar.warnings.join(" "));
    if (this.#live) void this.#live.session.switchTo(avatar.id);
    else this.#live = this.#connect(avatar);
  }

  /** The same portrait in a session of its own, since a session keeps its size. */
  async resize(size: PictureSize): Promise<void> {
    const session = this.#live?.session;
    if (!session?.avatar) return;
    try {
      await session.switchTo(session.avatar, size);
    } catch (error) {
      this.complain(complaint(error));
      this.pictureSize.restore();
    }
  }

  async play(source: RecordingSource): Promise<void> {
    const session = this.#live?.session;
    if (!session) return;
    this.stop();
    try {
      await session.unlock();
      const pcm = await decodeRecording(await source.bytes(), session.sampleRate);
      if (!session.say(pcm)) return;
      const total = Math.ceil((pcm.length * 25) / session.sampleRate);
      this.#progress = { id: source.id, shown: 0, total };
      this.recordings.setActive(source.id);
    } catch (error) {
      this.complain(complaint(error));
    }
  }

  stop(): void {
    this.#live?.session.microphone.endTurn();
    this.#live?.session.cancel();
    this.#endProgress();
  }

  complain(message: string): void {
    if (this.#live) this.#live.hook.lastError = message;
    this.toasts.show("error", message);
  }

  #connect(avatar: Avatar): Live {
    const session = connect({
      url: sessionUrl(),
      avatar: avatar.id,
      canvas: this.stage.canvas,
      picture: wantedPicture(),
      ...wantedSize(query),
      token: () => accessKey() ?? "",
    });
    const live: Live = {
      session,
      hook: installHook(session),
      talk: new TalkControls(session, (message) => this.complain(message)),
      record: new RecordButton(session, this.toasts, () => this.gallery.selected),
    };
    this.stage.attach(session);
    new Vitals(byId("vitals", HTMLElement), session);
    this.#listenTo(session);
    this.stage.showStatus(session.status);
    return live;
  }

  #listenTo(session: AvatarSession): void {
    session.on("status", (status) => this.#onStatus(status));
    session.on("busy", (busy) => {
      this.stopButton.disabled = !busy;
      if (!busy) this.#endProgress();
    });
    session.on("shown", (frame) => {
      if (!this.#progress || !frame.speech) return;
      this.#progress.shown += 1;
      const { id, shown, total } = this.#progress;
      this.recordings.setActive(id, shown / total);
    });
    session.on("warning", (error) => {
      if (error instanceof SpeechLostError) this.complain(complaint(error));
      // An error that ends the session gets the stage; the others get a notice.
      else
        setTimeout(() => {
          if (session.status.state === "live") this.complain(complaint(error));
        }, ERROR_SETTLES_MS);
    });
    session.on("fallback", () => {
      this.toasts.show("info", "H.264 failed in this browser; the picture now comes as JPEG.");
    });
    session.on("expiring", ({ reason, deadlineS, resumable }) =>
      this.toasts.show("info", expiringText(reason, deadlineS, resumable)),
    );
  }

  #listenToPage(): void {
    // Browsers allow sound only after a gesture: any gesture will do.
    for (const name of ["pointerdown", "keydown"] as const) {
      document.addEventListener(name, () => void this.#live?.session.unlock(), { capture: true });
    }
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.stop();
    });
    this.stopButton.addEventListener("click", () => this.stop());
    acceptFiles(byId("drop-veil", HTMLElement), {
      photo: (file) => void this.gallery.upload(file),
      recording: (file) => this.recordings.playFile(file),
      unknown: (file) =>
        this.complain(`${file.name} is neither a picture nor a recording. Drop one of these.`),
    });
    window.addEventListener("online", () => {
      if (this.#live?.session.status.state === "reconnecting") void this.#live.session.retry();
    });
  }

  async #loadPortraits(): Promise<void> {
    clearTimeout(this.#retryTimer);
    try {
      await this.gallery.load(query.get("avatar"));
      if (this.gallery.selected) return;
      this.stage.showStopped("No portrait");
      this.stage.showTrouble(NO_PORTRAITS, () => this.gallery.browse());
    } catch (error) {
      this.#onPortraitsFailed(error);
    }
  }

  #onPortraitsFailed(error: unknown): void {
    const known = error instanceof AvatarError ? error : null;
    const key = known !== null && wantsKey(known.code);
    if (!key) this.#retryTimer = setTimeout(() => void this.#loadPortraits(), RETRY_MS);
    let advice = UNREACHABLE;
    if (key) advice = { title: "This server wants a key", remedy: known.remedy, action: "", key };
    else if (known?.code !== "connection_lost") {
      advice = { ...UNREACHABLE, remedy: complaint(error) };
    }
    this.stage.showStopped("Stopped");
    this.stage.showTrouble(advice, () => void this.#loadPortraits());
  }

  #onStatus(status: AvatarStatus): void {
    this.stage.showStatus(status);
    const advice = statusAdvice(status);
    if (advice) {
      this.stage.showTrouble(advice, () => void this.#live?.session.retry());
      if (this.#live) this.#live.hook.lastError = advice.title;
    }
    const live = status.state === "live";
    if (!live && status.state !== "reconnecting") this.#endProgress();
    this.#setReady(live, live || (status.state === "reconnecting" && status.resuming));
    const session = this.#live?.session;
    if (session && status.state === "live") {
      const format = session.picture === "jpeg" ? "JPEG" : "H.264";
      const { width, height, fps } = status.settings.output;
      byId("picture-format", HTMLElement).textContent = format;
      byId("picture-rate", HTMLElement).textContent = `· ${fps} fps`;
      this.pictureSize.show(session.server?.output, { width, height });
      byId("colophon-video", HTMLElement).hidden = false;
    }
  }

  /** `heard`: what is said reaches the session, now or when it is resumed. */
  #setReady(ready: boolean, heard = ready): void {
    this.#live?.talk.setReady(heard);
    this.#live?.record.setReady(ready);
    this.recordings.setEnabled(ready);
    this.typed.setReady(ready);
  }

  #endProgress(): void {
    this.#progress = null;
    this.recordings.setActive(null);
  }
}

new Page().start();
