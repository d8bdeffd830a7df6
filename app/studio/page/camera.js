// The camera: one frame after the other goes to `look`; while that is busy, frames are dropped.

const WHY = {
  NotAllowedError: "The browser does not allow the camera here. Allow it beside the address, then try again.",
  NotFoundError: "No camera was found. Drop or choose photos instead.",
  NotReadableError: "Another program uses the camera. Close it, then try again.",
};
const QUALITY = 0.9; // of the JPEG that is sent

export class Camera {
  // `most`: frames a second; `side`: of the longer side in pixels.
  constructor(video, look, { most = 5, side = 480 } = {}) {
    this.video = video;
    this.look = look;
    this.pause = 1000 / most;
    this.side = side;
    this.canvas = document.createElement("canvas");
    this.stream = null;
    this.starting = null;
  }

  get on() {
    return this.stream !== null;
  }

  // Who clicks again while the browser still asks gets the same camera: a second one would never stop.
  start() {
    this.starting ??= this.#start().finally(() => (this.starting = null));
    return this.starting;
  }

  async #start() {
    if (this.on) return;
    if (!navigator.mediaDevices) throw new Error("This browser gives pages no camera.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: false,
        video: { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "environment" },
      });
    } catch (error) {
      throw new Error(WHY[error.name] ?? `The camera cannot be used (${error.name}).`);
    }
    this.stream = stream;
    this.video.srcObject = stream;
    this.video.hidden = false;
    try {
      await this.video.play();
    } catch (error) {
      this.stop();
      throw new Error(`The camera shows nothing (${error.name}).`);
    }
    const { videoWidth, videoHeight } = this.video;
    this.video.style.setProperty("--ratio", `${videoWidth} / ${videoHeight}`);
    this.video.style.setProperty("--ratio-number", videoWidth / videoHeight);
    this.#run(stream);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
    this.video.hidden = true;
  }

  // Returns what the camera sees now as a JPEG.
  frame() {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, this.side / Math.max(videoWidth, videoHeight));
    this.canvas.width = Math.max(1, Math.round(videoWidth * scale));
    this.canvas.height = Math.max(1, Math.round(videoHeight * scale));
    const context = this.canvas.getContext("2d");
    context.drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    return new Promise((done) => this.canvas.toBlob(done, "image/jpeg", QUALITY));
  }

  async #run(stream) {
    while (this.stream === stream) {
      const begun = performance.now();
      if (!document.hidden && this.video.videoWidth) {
        const blob = await this.frame();
        if (blob && this.stream === stream) await this.look(blob);
      }
      const left = this.pause - (performance.now() - begun);
      await new Promise((done) => setTimeout(done, Math.max(left, 10)));
    }
  }
}
