from contextlib import suppress

import pytest

from edgead.errors import InputError
from edgead.files.addresses import Address, hide_arguments, without_secrets
from edgead.text import printable

# Addresses as the manuals of the vendors, and the lists of integrators, write them. The secrets are `S3cret`, `T0ken`
# and the user `jdoe`.
VENDORS = {
    "hikvision": "rtsp://jdoe:S3cret@192.168.1.64:554/Streaming/Channels/101?transportmode=unicast&profile=Profile_1",
    "hikvision old": "rtsp://jdoe:S3cret@192.168.1.64:554/h264/ch1/main/av_stream",
    "hikvision snapshot": "http://jdoe:S3cret@192.168.1.64/ISAPI/Streaming/channels/102/httpPreview",
    "hikvision auth": "rtsp://192.168.1.64/Streaming/Channels/101/?auth=amRvZTpTM2NyZXQ=",
    "dahua": "rtsp://jdoe:S3cret@192.168.1.108:554/cam/realmonitor?channel=1&subtype=0",
    "dahua hash in password": "rtsp://jdoe:#S3cret@192.168.1.108:554/cam/realmonitor?channel=1&subtype=0",
    "amcrest": "http://jdoe:S3cret@192.168.1.5/cgi-bin/mjpg/video.cgi?channel=1&subtype=1",
    "amcrest login": "http://192.168.1.5/cgi-bin/snapshot.cgi?loginuse=jdoe&loginpas=S3cret",
    "axis": "rtsp://jdoe:S3cret@axis-cam/axis-media/media.amp?videocodec=h264&resolution=1280x720",
    "axis mjpeg": "http://jdoe:S3cret@axis-cam/axis-cgi/mjpg/video.cgi?camera=1&fps=5&compression=30",
    "foscam": "http://foscam:88/cgi-bin/CGIProxy.fcgi?cmd=getDevState&usr=jdoe&pwd=S3cret",
    "foscam old": "http://foscam/videostream.cgi?user=jdoe&pwd=S3cret",
    "foscam rtsp": "rtsp://jdoe:S3cret@foscam:88/videoMain",
    "reolink": "http://reolink/cgi-bin/api.cgi?cmd=Snap&channel=0&rs=wuuPhkmUCeI9WG7C&user=jdoe&password=S3cret",
    "reolink flv": "http://reolink/flv?port=1935&app=bcs&stream=channel0_main.bcs&user=jdoe&password=S3cret",
    "reolink token": "http://reolink/cgi-bin/api.cgi?cmd=GetDevInfo&token=T0ken",
    "reolink rtsp": "rtsp://jdoe:S3cret@reolink:554/h264Preview_01_main",
    "vivotek": "rtsp://jdoe:S3cret@vivotek.example.com/live.sdp",
    "vivotek snapshot": "http://jdoe:S3cret@vivotek.example.com/cgi-bin/viewer/video.jpg?channel=0&resolution=640x480",
    "d-link": "rtsp://jdoe:S3cret@192.168.0.20/play1.sdp",
    "d-link snapshot": "http://jdoe:S3cret@192.168.0.20/image/jpeg.cgi",
    "tapo": "rtsp://jdoe:S3cret@192.168.0.30:554/stream1",
    "tapo mail as user": "rtsp://jdoe@example.com:S3cret@192.168.0.30:554/stream1",
    "ubiquiti alias": "rtsps://192.168.1.1:7441/T0kenbC2dEfGhIjK?enableSrtp",
    "ubiquiti letters": "rtsp://unvr.local:7447/xKqzPwVbTMnLsRdT0ken",
    "hanwha": "rtsp://jdoe:S3cret@hanwha:554/profile2/media.smp",
    "hanwha snapshot": "http://jdoe:S3cret@hanwha/stw-cgi/video.cgi?msubmenu=snapshot&action=view&Profile=1",
    "mobotix": "http://jdoe:S3cret@mobotix/control/faststream.jpg?stream=full&fps=4",
    "mobotix public": "http://mobotix/record/current.jpg?_auth=S3cret",
    "onvif": "http://192.168.1.9/onvif/snapshot?token=T0ken",
    "onvif profile": "http://192.168.1.9/onvif-http/snapshot?Profile_1&auth=S3cret",
    "acti": "http://acti/cgi-bin/encoder?USER=jdoe&PWD=S3cret&GET_STREAM",
    "acti other port": "rtsp://jdoe:S3cret@acti:7070/track1",
    "xmeye": "rtsp://10.0.0.3:554/user=jdoe_password=S3cret_channel=1_stream=0.sdp?real_stream",
    "xmeye ampersand": "rtsp://10.0.0.3:554/user=jdoe&password=S3cret&channel=1&stream=0.sdp?real_stream--rtp-caching=100",
    "xmeye hash": "rtsp://10.0.0.3:554/user=jdoe_password=tlS3cret_channel=1_stream=0.sdp",
    "path with a slash": "rtsp://10.0.0.3/user=jdoe_password=a/S3cret_channel=1_stream=0.sdp",
    "pair in the path": "rtsp://10.0.0.4/0/jdoe:S3cret/main",
    "admin in the path": "rtsp://10.0.0.4/admin/S3cret/ch1",
    "token in the path": "http://10.0.0.4/live/token/T0ken/index.m3u8",
    "matrix parameter": "http://10.0.0.4/live;jsessionid=T0ken/video.mjpg",
    "encoded pair": "http://10.0.0.4/jdoe%3AS3cret/video.mjpg",
    "key without name": "http://10.0.0.4/video.mjpg?S3cret",
    "base64": "http://10.0.0.4/video.mjpg?S3cret==",
    "ampersand in password": "http://10.0.0.4/snap.jpg?user=jdoe&password=a&S3cret",
    "hash in the query": "http://10.0.0.4/snap.jpg?user=jdoe&pwd=a#S3cret",
    "fragment": "http://10.0.0.4/video#access_token=T0ken",
    "aws": "https://b.s3.amazonaws.com/a.mp4?X-Amz-Credential=jdoe%2F2026&X-Amz-Signature=S3cret&X-Amz-Security-Token=T0ken",
    "azure": "https://b.blob.core.windows.net/c/a.mp4?sv=2025-01-05&sp=r&sig=S3cret%3D",
    "google": "https://storage.googleapis.com/b/a.mp4?GoogleAccessId=jdoe@x.com&Expires=1&Signature=S3cret",
    "cloudfront": "https://d1.cloudfront.net/a.mp4?Policy=T0ken&Signature=S3cret&Key-Pair-Id=jdoe",
    "no host": "rtsp://jdoe:S3cret",
    "sink of a later version": "post:https://jdoe:S3cret@plant.example.com/hook?key=T0ken",
}


@pytest.mark.parametrize("address", VENDORS.values(), ids=VENDORS)
def test_no_secret_of_a_vendors_address_is_shown(address: str) -> None:
    shown = without_secrets(address)
    assert "***" in shown
    for secret in ("S3cret", "T0ken", "jdoe", "amRvZTpTM2NyZXQ", "wuuPhkmUCeI9WG7C"):
        assert secret not in shown
    assert shown.startswith(address.partition("://")[0])


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (
            VENDORS["dahua"],
            "rtsp://***@192.168.1.108:554/cam/realmonitor?channel=1&subtype=0",
        ),
        (
            VENDORS["xmeye"],
            "rtsp://10.0.0.3:554/user=***_password=***_channel=1_stream=0.sdp?real_stream",
        ),
        (VENDORS["foscam old"], "http://foscam/videostream.cgi?user=***&pwd=***"),
        (VENDORS["reolink rtsp"], "rtsp://***@reolink:554/h264Preview_01_main"),
        (VENDORS["admin in the path"], "rtsp://10.0.0.4/admin/***/ch1"),
        (VENDORS["aws"].partition("&")[0], "https://b.s3.amazonaws.com/a.mp4?X-Amz-Credential=***"),
        ("rtsp://cam:554/Streaming/Channels/101", "rtsp://cam:554/Streaming/Channels/101"),
        ("http://[fe80::1]:8080/axis-media/media.amp", "http://[fe80::1]:8080/axis-media/media.amp"),
        ("rtsp://user:sec@ret@cam:554/line@2", "rtsp://***@cam:554/line@2"),
        ("HTTP://me:pw@cam", "HTTP://***@cam"),
        ("http://nvr/clips/2026-01-01T12:30:00.mp4", "http://nvr/clips/2026-01-01T12:30:00.mp4"),
        ("http://cam/snap.jpg?token=x#fps=2", "http://cam/snap.jpg?token=***#fps=2"),
        ("rtsp://cam/live#transport=udp", "rtsp://cam/live#transport=udp"),
        ("genicam://00:30:53:2a:1b:4f?exposure_us=5000", "genicam://00:30:53:2a:1b:4f?exposure_us=5000"),
        ("v4l2:///dev/v4l/by-id/usb-0aZ9bY8cX7dW6?fps=5", "v4l2:///dev/v4l/by-id/usb-0aZ9bY8cX7dW6?fps=5"),
        ("genicam://me:S3cret@cam", "genicam://***@cam"),
        ("genicam://x rtsp://me:S3cret@cam/live", "genicam://***@cam/live"),
        ("folder/a@b", "folder/a@b"),
        ("shots/user:secret@2x.mp4", "shots/user:secret@2x.mp4"),
        ("camera:0", "camera:0"),
        ("synthetic:washer?seed=3&fps=10", "synthetic:washer?seed=3&fps=10"),
    ],
)
def test_the_rest_of_an_address_stays(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


SPECIAL = "@:/#?% &=;+[]\\\"'ü€\x1b"


@pytest.mark.parametrize("character", SPECIAL)
@pytest.mark.parametrize("host", ["cam", "cam.example.com", "192.168.1.4", "[fe80::1]:554"])
def test_a_password_with_any_character_is_hidden_and_used(character: str, host: str) -> None:
    password = f"S3{character}cret{character}x"
    typed = f"rtsp://admin:{password}@{host}/live"
    assert without_secrets(typed) == f"rtsp://***@{host}/live"
    parsed = Address.parse(typed)
    assert (parsed.url, parsed.user, parsed.password) == (f"rtsp://{host}/live", "admin", password)
    encoded = parsed.with_user()
    assert Address.parse(encoded) == parsed
    # What is between the scheme and the last `@` is then free of everything that ends an authority.
    assert not set("/?#[] ") & set(encoded.partition("://")[2].rpartition("@")[0])


@pytest.mark.parametrize("password", ["12/34", "1?2/3", "p@ss/w@rd", "p@ss?w@rd#1", "@@//@", "a@b.c/d", "/"])
@pytest.mark.parametrize("user", ["admin", "john.doe"])
def test_a_password_that_reads_like_a_host_or_a_port_is_hidden(user: str, password: str) -> None:
    shown = without_secrets(f"http://{user}:{password}@192.168.1.4/snap.jpg")
    assert shown == "http://***@192.168.1.4/snap.jpg"


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://user:12/34@host/",
        "rtsp://user:12/34@192.168.1.4:554/live",
        "rtsp://user:12/34@cam.example.com",
        "http://john.doe:12/34@192.168.1.4/snap.jpg#fps=2",
        "rtsp://user:1?34@host/",
        "rtsp://user:1?2/34@host/live?channel=1",
        "rtsp://user:12#34@host/x",
        "rtsp://user:12/a@34@host/x",
    ],
)
def test_a_password_that_reads_like_a_port_is_refused(address: str) -> None:
    with pytest.raises(InputError) as caught:
        Address.parse(address)
    shown = str(caught.value)
    for secret in ("user", "john", "12", "34@"):
        assert secret not in shown.replace("192.168", "").replace("user with", "")
    for written in ("%2F", "%3F", "%23", "%40"):
        assert written in str(caught.value.hint)
    for character, written in (("/", "%2F"), ("?", "%3F"), ("#", "%23")):
        start, _, rest = address.partition("12")
        if rest.startswith(character):
            # As the hint says, it is read.
            assert Address.parse(f"{start}12{written}{rest[1:]}").password.startswith(f"12{character}")


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://cam:554/line@2",
        "rtsp://192.168.1.4:554/user@mail.com/live",
        "rtsp://cam/user@mail.com/live",
        "http://cam:8080/snap.jpg?mail=me@example.com",
        "rtsp://cam:554/me%40example.com/live",
        "http://[fe80::1]:80/a@b.c",
    ],
)
def test_a_port_with_an_at_sign_after_it_stays_a_port(address: str) -> None:
    assert Address.parse(address) == Address(address, None, "", "")


def test_an_address_is_read_by_the_rules_of_rfc_3986() -> None:
    assert Address.parse("http://a%40b:c%2Fd%25@cam:80/x@y?m=a@b.c#fps=0.5") == Address(
        "http://cam:80/x@y?m=a@b.c", "a@b", "c/d%", "fps=0.5"
    )
    assert Address.parse("rtsp://cam/line@cam2").user is None
    assert Address.parse("http://cam/a b\r\nX: y?pwd=a#b").url == "http://cam/a%20b%0D%0AX:%20y?pwd=a%23b"


@pytest.mark.parametrize("secret", ["S3\x1bcret", "S3\ncret", "S3\u202ecret", "S3\udcffcret", "S3\\cret'"])
def test_a_secret_is_hidden_in_a_text_that_was_escaped_before(secret: str) -> None:
    address = f"rtsp://admin:{secret}@cam/live"
    for text in (f"no {address}.", printable(f"no {address}."), f"no {address!r}."):
        shown = hide_arguments(text, ["stream", address])
        assert "S3" not in shown
        assert "cret" not in shown
        assert "rtsp://***@cam/live" in shown


def test_secrets_of_arguments_are_hidden_in_a_text() -> None:
    address = "rtsp://admin:S3 cret@cam/live"
    arguments = ["stream", f"--source={address}", "S3"]
    assert hide_arguments(f"no {address}, no rtsp:/admin:S3 cret@cam/live", arguments) == (
        "no rtsp://***@cam/live, no rtsp://***@cam/live"
    )


def test_a_long_address_is_searched_in_linear_time() -> None:
    # With time in the square of the length, this takes hours.
    word = "a" * 400_000
    assert without_secrets(word) == word
    assert "secret" not in without_secrets(f"{word}://user:secret@cam/live")
    many = 100_000
    paths = (word, f"{word}/" * 3, f"{word}=", "1:11" * many + "x", "a=" * many, "@a.b" * many, "@" * many)
    for path in paths:
        for address in (f"http://cam/{path}", f"http://cam:80/{path}?{path}", f"http://user:{path}x"):
            without_secrets(address)
            with suppress(InputError):
                Address.parse(address)
