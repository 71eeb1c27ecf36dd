/**
 * Binary frames of the wire protocol: a 32-byte little-endian header, then audio bytes, then video
 * bytes. Pure functions over bytes; nothing here knows of sockets, codecs or clocks.
 */
import { HEADER_OFFSETS as AT, HEADER_BYTES, Kind } from "./protocol";

export interface WireHeader {
  kind: number;
  flags: number;
  /** Counts up per direction, modulo 2**32. */
  seq: number;
  /** Microseconds on the session timeline, never reset. */
  ptsUs: number;
  /** Generation: one more after every cancel. */
  epoch: number;
  /** Index of the response that the frame belongs to; 0 = idle. */
  response: number;
}

export interface WireFrame extends WireHeader {
  audio: Uint8Array<ArrayBuffer>;
  video: Uint8Array<ArrayBuffer>;
}

/** The bytes are no frame of this protocol; the message says which field is wrong. */
export class WireError extends Error {
  override name = "WireError";
}

/** Views into `buffer`; no bytes are copied. Header bytes beyond the 32 known ones are skipped. */
export function decodeFrame(buffer: ArrayBuffer): WireFrame {
  if (buffer.byteLength < HEADER_BYTES) {
    throw new WireError(
      `frame of ${buffer.byteLength} bytes is shorter than its ${HEADER_BYTES}-byte header`,
    );
  }
  const view = new DataView(buffer);
  const headerLength = view.getUint16(AT.header_len, true);
  const audioLength = view.getUint32(AT.audio_len, true);
  const videoLength = view.getUint32(AT.video_len, true);
  if (headerLength < HEADER_BYTES) {
    throw new WireError(`header_len=${headerLength} is below ${HEADER_BYTES}`);
  }
  const expected = headerLength + audioLength + videoLength;
  if (buffer.byteLength !== expected) {
    throw new WireError(
      `frame has ${buffer.byteLength} bytes, its header announces ${expected} ` +
        `(header_len=${headerLength}, audio_len=${audioLength}, video_len=${videoLength})`,
    );
  }
  return {
    kind: view.getUint8(AT.kind),
    flags: view.getUint8(AT.flags),
    seq: view.getUint32(AT.seq, true),
    // 2**53 microseconds are 285 years: a double holds every timestamp that can occur.
    ptsUs: Number(view.getBigUint64(AT.pts_us, true)),
    epoch: view.getUint32(AT.epoch, true),
    response: view.getUint32(AT.response, true),
    audio: new Uint8Array(buffer, headerLength, audioLength),
    video: new Uint8Array(buffer, headerLength + audioLength, videoLength),
  };
}

export function encodeFrame(frame: WireFrame): ArrayBuffer {
  const buffer = new ArrayBuffer(HEADER_BYTES + frame.audio.length + frame.video.length);
  const view = new DataView(buffer);
  view.setUint8(AT.kind, frame.kind);
  view.setUint8(AT.flags, frame.flags);
  view.setUint16(AT.header_len, HEADER_BYTES, true);
  view.setUint32(AT.seq, frame.seq, true);
  view.setBigUint64(AT.pts_us, BigInt(frame.ptsUs), true);
  view.setUint32(AT.epoch, frame.epoch, true);
  view.setUint32(AT.response, frame.response, true);
  view.setUint32(AT.audio_len, frame.audio.length, true);
  view.setUint32(AT.video_len, frame.video.length, true);
  const bytes = new Uint8Array(buffer);
  bytes.set(frame.audio, HEADER_BYTES);
  bytes.set(frame.video, HEADER_BYTES + frame.audio.length);
  return buffer;
}

const NO_BYTES = new Uint8Array(0);

/** One AUDIO_IN frame of little-endian PCM16 mono. */
export function encodeAudioIn(seq: number, ptsUs: number, pcm: Int16Array): ArrayBuffer {
  return encodeFrame({
    kind: Kind.AudioIn,
    flags: 0,
    seq,
    ptsUs,
    epoch: 0,
    response: 0,
    audio: pcmToBytes(pcm),
    video: NO_BYTES,
  });
}

/** Little-endian bytes of PCM16, whatever the byte order of this machine. */
export function pcmToBytes(pcm: Int16Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pcm.length * 2);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < pcm.length; i++) view.setInt16(i * 2, pcm[i] ?? 0, true);
  return bytes;
}

/** PCM16 bytes to floats in [-1, 1); an odd last byte is an error. */
export function pcmToFloat(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  if (bytes.length % 2 !== 0) {
    throw new WireError(`audio_len=${bytes.length} is odd; PCM16 needs two bytes a sample`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const samples = new Float32Array(bytes.length / 2);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(i * 2, true) / 32768;
  return samples;
}
