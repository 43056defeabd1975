// Plays a video and says which of its frames is shown, on the clock of the maps.

const minutes = (seconds) => {
  const whole = Math.max(0, Math.floor(seconds + 1e-3));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

export class Player {
  /**
   * @param {(time: number) => void} show is called for every frame that is shown, with its time in seconds
   * @param {() => void} fail is called if the browser cannot play the file
   */
  constructor(show, fail) {
    const by = (id) => document.getElementById(id);
    Object.assign(this, { show, fail, video: by("video"), seekBar: by("seek"), play: by("play"), mute: by("mute") });
    Object.assign(this, { clock: by("time"), time: 0, origin: null, duration: 0, loads: 0 });
    this.play.addEventListener("click", () => this.toggle());
    by("frame").addEventListener("click", () => this.toggle());
    this.mute.addEventListener("click", () => { this.video.muted = !this.video.muted; });
    by("full").addEventListener("click", () => this.fullScreen(by("stage")));
    this.seekBar.addEventListener("input", () => this.seek(Number(this.seekBar.value)));
    for (const name of ["play", "pause", "volumechange"]) this.video.addEventListener(name, () => this.label());
    this.video.addEventListener("error", () => this.video.hasAttribute("src") && this.fail());
    this.video.addEventListener("loadedmetadata", () => {
      if (!this.video.videoWidth) this.fail(); // it plays the sound alone
    });
    this.video.addEventListener("seeked", () => this.shown(this.video.currentTime)); // the frame may be shown already
    if (!("requestVideoFrameCallback" in HTMLVideoElement.prototype)) {
      for (const name of ["loadeddata", "timeupdate"]) {
        this.video.addEventListener(name, () => this.shown(this.video.currentTime));
      }
    }
    this.label();
  }

  /** Opens a file; the duration is that of the video in seconds, as stajax counts it. */
  load(address, duration) {
    this.duration = duration;
    this.seekBar.max = duration;
    this.origin = null; // the first frame's time on the browser's clock, which may begin with the sound
    this.loads += 1;
    this.video.src = address;
    this.watch(this.loads);
    this.shown(0);
  }

  /** Stops, and forgets the file. */
  close() {
    this.loads += 1;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }

  watch(load) {
    if (!("requestVideoFrameCallback" in this.video)) return;
    this.video.requestVideoFrameCallback((_, frame) => {
      if (load !== this.loads) return;
      this.shown(frame.mediaTime);
      this.watch(load);
    });
  }

  shown(mediaTime) {
    if (this.origin === null && this.video.readyState >= 2) this.origin = this.video.currentTime < 0.5 ? mediaTime : 0;
    this.time = Math.max(0, mediaTime - (this.origin ?? 0));
    this.seekBar.value = this.time;
    this.clock.textContent = `${minutes(this.time)} / ${minutes(this.duration)}`;
    this.seekBar.setAttribute("aria-valuetext", `${minutes(this.time)} of ${minutes(this.duration)}`);
    this.show(this.time);
  }

  seek(time) {
    this.video.currentTime = time + (this.origin ?? 0);
    this.seekBar.value = time;
  }

  toggle() {
    if (this.video.paused) this.video.play().catch(() => {}); // where it cannot play, `error` says so
    else this.video.pause();
  }

  fullScreen(stage) {
    if (document.fullscreenElement) document.exitFullscreen();
    else stage.requestFullscreen?.().catch(() => {});
  }

  label() {
    this.play.setAttribute("aria-label", this.video.paused ? "Play" : "Pause");
    this.play.classList.toggle("on", !this.video.paused);
    this.mute.setAttribute("aria-pressed", String(this.video.muted));
    this.mute.classList.toggle("on", this.video.muted);
  }
}
