/* Browsers give no worker to a page that was opened from a disk, and the search of this site is one. It then runs in a
   hidden frame. From a web server it runs as a worker. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inner = this.frame.contentWindow;
      inner.postMessageToPage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inner.document.open();
      inner.document.write(
        "<!doctype html><script>postMessage = (data) => postMessageToPage(data); importScripts = () => {};</scr" +
          "ipt>"
      );
      const script = inner.document.createElement("script");
      script.src = url;
      script.onload = () => {
        this.frame.ready = true;
        for (const data of this.waiting) this.deliver(data);
      };
      inner.document.head.append(script);
      inner.document.close();
    }
    deliver(data) {
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }
    postMessage(data) {
      if (this.frame.ready) this.deliver(data);
      else this.waiting.push(data);
    }
    terminate() {
      this.frame.remove();
    }
  };
}
