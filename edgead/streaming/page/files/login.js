"use strict";

document.getElementById("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = document.getElementById("message");
  let text = "the stream does not answer";
  try {
    const answer = await fetch("login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: document.getElementById("token").value.trim() }),
    });
    if (answer.ok) return location.replace("./");
    text = await answer.text();
  } catch {
    // The text says it.
  }
  message.textContent = text;
  message.hidden = false;
});
