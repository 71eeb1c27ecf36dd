/** Small conversions between floats and PCM16. */

/** Floats to PCM16, clipped at full scale. */
export function floatToPcm(samples: Float32Array): Int16Array<ArrayBuffer> {
  const pcm = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    const scaled = Math.round((samples[i] ?? 0) * 32767);
    pcm[i] = Math.max(-32768, Math.min(32767, scaled));
  }
  return pcm;
}

/** Root mean square of PCM16 in decibels of full scale; silence is -100. */
export function levelDb(pcm: Int16Array): number {
  if (pcm.length === 0) return -100;
  let sum = 0;
  for (const sample of pcm) sum += sample * sample;
  const rms = Math.sqrt(sum / pcm.length) / 32768;
  return rms < 1e-5 ? -100 : 20 * Math.log10(rms);
}
