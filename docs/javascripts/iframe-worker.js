"use strict";
// A browser starts no worker for a page that is opened from the disk. There the search runs in a hidden frame instead.
// mkdocs-material's plugin "offline" takes this file, by its name, for the script that it would load from a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.documentElement.append(frame);
      const inside = frame.contentWindow, page = frame.contentDocument.open(); // or Firefox replaces it once it is filled
      page.write("<!DOCTYPE html><body>");
      page.close();
      const script = page.createElement("script");
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.ready = new Promise((done, failed) => Object.assign(script, { src: url, onload: done, onerror: failed }));
      this.send = (data) => inside.dispatchEvent(new MessageEvent("message", { data }));
      page.body.append(script);
    }

    postMessage(data) {
      this.ready.then(() => this.send(data));
    }
  };
}
