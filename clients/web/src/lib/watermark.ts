/** Words that can be seen in every picture of a recording: what it is, for those who only see it. */

/** Of the picture's height. */
const TEXT_SHARE = 0.05;
const SMALLEST_PX = 10;
/** Between the words and their plate, and between the plate and the border; of the text's size. */
const PADDING = 0.45;

/** A copy of a canvas with words in its lower right corner. */
export class WatermarkedCanvas {
  readonly canvas = document.createElement("canvas");
  readonly #context: CanvasRenderingContext2D;

  constructor(
    readonly source: HTMLCanvasElement,
    readonly text: string,
  ) {
    const context = this.canvas.getContext("2d", { alpha: false });
    if (!context) throw new Error("this browser offers no 2D canvas");
    this.#context = context;
    this.draw();
  }

  /** Takes over what the source shows now. */
  draw(): void {
    const { width, height } = this.source;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    this.#context.drawImage(this.source, 0, 0);
    this.#write(width, height);
  }

  #write(width: number, height: number): void {
    const context = this.#context;
    const wishedPx = Math.max(SMALLEST_PX, TEXT_SHARE * height);
    context.font = font(wishedPx);
    const room = width / (context.measureText(this.text).width + 4 * PADDING * wishedPx);
    const sizePx = wishedPx * Math.min(1, room);
    context.font = font(sizePx);
    const padding = PADDING * sizePx;
    const plateWidth = context.measureText(this.text).width + 2 * padding;
    const plateHeight = sizePx + 2 * padding;
    const left = width - plateWidth - padding;
    const top = height - plateHeight - padding;
    context.fillStyle = "rgb(0 0 0 / 62%)";
    context.fillRect(left, top, plateWidth, plateHeight);
    context.fillStyle = "white";
    context.textBaseline = "middle";
    context.fillText(this.text, left + padding, top + plateHeight / 2);
  }
}

function font(sizePx: number): string {
  return `600 ${sizePx}px system-ui, sans-serif`;
}
