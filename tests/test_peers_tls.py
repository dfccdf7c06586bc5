"""SIP over TLS with real handshakes: who is believed, who is not, and that keys go only there."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from callshield.errors import ConfigurationError, SetupError
from callshield.messages import LegName
from callshield.settings import load_settings
from callshield.settings_sip import TlsSettings
from sipbridge.tls_files import check_tls_files
from tests.peers.signalling import (
    PBX,
    PBX_SIDE,
    PHONE,
    PHONE_SIDE,
    End,
    Signalling,
    Wire,
    signalling,
)
from tests.test_peers_offer import audio, crypto, hang_up, key, said, talk

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]


@dataclass
class Authority:
    """A certificate authority of a test's own."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.folder.name)])
        self.certificate = (
            self._builder(self.name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    def issue(
        self, address: str, secret: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None
    ) -> tuple[Path, Path]:
        """Certificate and key files of somebody at an address; of elliptic curves unless given."""
        secret = secret or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "end")])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        certificate = (
            self._builder(name, secret.public_key())
            .add_extension(alternative, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        files = self.folder / f"{address}.pem", self.folder / f"{address}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            secret.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        files[1].chmod(0o600)
        return files

    def table(self, side: str, address: str, more: str = "") -> str:
        """``[sip.SIDE.tls]`` for the configuration; the test's bridge puts the port in."""
        certificate, secret = self.issue(address)
        return (
            f'[sip.{side}.tls]\nport = TLS_PORT\ncertificate = "{certificate}"\n'
            f'private_key = "{secret}"\nca_file = "{self.file}"\n{more}\n'
        )

    def client(self, address: str = "") -> ssl.SSLContext:
        """Believes this authority; shows a certificate when it has an address."""
        context = ssl.create_default_context(cafile=str(self.file))
        if address:
            context.load_cert_chain(*self.issue(address))
        return context

    def server(self, address: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(address))
        return context


@pytest.fixture
def house(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "house")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger")


async def tls_phone(context: ssl.SSLContext) -> End:
    return End(await Wire.tls_server(PHONE, context))


def agents(phone: End, more: str = "", sips: bool = False) -> dict[str, str]:
    where = f"1001@{PHONE}:{phone.wire.port}"
    uri = f"sips:{where}" if sips else f"sip:{where};transport=tls"
    return {"1001": f'uri = "{uri}"\n{more}'}


@pytest.mark.parametrize("sips", [False, True])
async def test_call_over_tls_on_both_sides_with_srtp(
    tmp_path: Path, house: Authority, sips: bool
) -> None:
    phone = await tls_phone(house.server(PHONE))
    async with signalling(
        tmp_path / "bridge",
        agents(phone, sips=sips),
        pbx='srtp = "required"\n' + house.table("pbx", PBX_SIDE),
        phone='srtp = "required"\n' + house.table("phone", PHONE_SIDE),
    ) as bridge:
        pbx = await bridge.caller(tls=house.client())
        invite, accepted = await talk(
            bridge,
            pbx,
            phone,
            said("8", "RTP/SAVP " + crypto(1, 1)),
            said("8", "RTP/SAVP " + crypto(1, 2), address=PHONE, port=5000),
        )
        assert invite.header("Via").startswith("SIP/2.0/TLS ")
        assert "TLS" in accepted.header("Contact").upper() or "sips:" in accepted.header("Contact")
        assert audio(invite).secure
        caller, agent = (
            await bridge.media.leg(LegName.CALLER),
            await bridge.media.leg(LegName.AGENT),
        )
        assert caller.srtp is not None
        assert agent.srtp is not None
        # What we send in a dialog goes the same way: the phone hangs up, the PBX gets our BYE.
        await phone.next(lambda m: m.method == "ACK")
        phone.hang_up()
        bye = await pbx.next(lambda m: m.method == "BYE")
        assert bye.header("Via").startswith("SIP/2.0/TLS ")
        pbx.answer("200 OK", to=bye)
        await bridge.media.call_closed()
        assert key(1)[:12] not in bridge.log_path.read_text()
    phone.close()


async def test_keys_in_the_clear_are_refused_beside_tls(tmp_path: Path, house: Authority) -> None:
    """The same node, the same offer: over TLS it is a call, over UDP it is 488."""
    phone = await tls_phone(house.server(PHONE))
    async with signalling(
        tmp_path / "bridge",
        agents(phone),
        pbx='srtp = "optional"\n' + house.table("pbx", PBX_SIDE),
        phone=house.table("phone", PHONE_SIDE),
    ) as bridge:
        offer = said("8", "RTP/SAVP " + crypto(1, 1))
        refused = await (await bridge.caller()).invite(offer)
        assert refused.status == 488
        assert "over TLS only" in refused.header("Warning")
        pbx = await bridge.caller(tls=house.client())
        await talk(bridge, pbx, phone, offer, said("8", address=PHONE, port=5000))
        await hang_up(bridge, pbx)
    phone.close()


async def test_phone_with_a_strangers_certificate_is_not_called(
    tmp_path: Path, house: Authority, stranger: Authority
) -> None:
    phone = await tls_phone(stranger.server(PHONE))
    async with signalling(
        tmp_path / "bridge", agents(phone), phone=house.table("phone", PHONE_SIDE)
    ) as bridge:
        pbx = await bridge.caller()
        refused = await pbx.invite(said("8"))
        assert refused.status == 480
        assert not phone.wire.inbox.qsize()
    phone.close()


async def test_phone_with_anothers_address_in_its_certificate_is_not_called(
    tmp_path: Path, house: Authority
) -> None:
    phone = await tls_phone(house.server("127.0.0.99"))
    async with signalling(
        tmp_path / "bridge", agents(phone), phone=house.table("phone", PHONE_SIDE)
    ) as bridge:
        refused = await (await bridge.caller()).invite(said("8"))
        assert refused.status == 480
        assert not phone.wire.inbox.qsize()
    phone.close()


async def test_unchecked_only_where_it_is_configured(tmp_path: Path, stranger: Authority) -> None:
    """Negative control of the two above: the same phone is called when nothing is checked."""
    phone = await tls_phone(stranger.server("127.0.0.99"))
    table = stranger.table("phone", PHONE_SIDE, "verify_server = false")
    async with signalling(tmp_path / "bridge", agents(phone), phone=table) as bridge:
        pbx = await bridge.caller()
        await talk(bridge, pbx, phone, said("8"), said("8", address=PHONE, port=5000))
        await hang_up(bridge, pbx)
    phone.close()


async def options(bridge: Signalling, context: ssl.SSLContext, timeout_s: float = 3) -> int:
    """The status of an OPTIONS over TLS.

    Raises:
        OSError, AssertionError: there was no handshake, or the connection was closed upon it.
    """
    pbx = await bridge.caller(tls=context)
    pbx.request("OPTIONS")
    return (await pbx.next(lambda m: m.status >= 200, timeout_s)).status


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_who_may_connect(tmp_path: Path, house: Authority, stranger: Authority) -> None:
    nobody = {"1001": f'uri = "sip:1001@{PHONE}:5999"\n'}
    table = house.table("pbx", PBX_SIDE, "require_client_certificate = true")
    async with signalling(tmp_path / "bridge", nobody, pbx=table) as bridge:
        assert await options(bridge, house.client(PBX), 20) == 200
        # No certificate, a stranger's, one who does not believe us, and a protocol of yesterday.
        with pytest.raises((OSError, AssertionError)):
            await options(bridge, house.client())
        forged = house.client()
        forged.load_cert_chain(*stranger.issue(PBX))
        with pytest.raises((OSError, AssertionError)):
            await options(bridge, forged)
        with pytest.raises(ssl.SSLCertVerificationError):
            await options(bridge, stranger.client(PBX))
        old = house.client(PBX)
        old.set_ciphers("DEFAULT@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError, match=r"(?i)alert|version"):
            await options(bridge, old)
        assert await options(bridge, house.client(PBX), 20) == 200


async def test_a_key_that_others_may_read_stops_the_start(tmp_path: Path, house: Authority) -> None:
    bridge = Signalling(tmp_path / "bridge", {}, pbx=house.table("pbx", PBX_SIDE))
    secret = house.folder / f"{PBX_SIDE}.key"
    secret.chmod(0o640)
    with pytest.raises(AssertionError, match=r"sip\.pbx\.tls\.private_key: others may read"):
        await bridge.start()
    await bridge.stop()
    secret.unlink()
    bridge = Signalling(tmp_path / "bridge", {}, pbx="")
    bridge.config.write_text(
        bridge.config.read_text().replace(
            "[sip.phone]",
            f'[sip.pbx.tls]\ncertificate = "{secret}"\nprivate_key = "{secret}"\n'
            f'ca_file = "{house.file}"\n[sip.phone]',
        )
    )
    with pytest.raises(AssertionError, match="cannot be read"):
        await bridge.start()
    await bridge.stop()


def test_files_that_do_not_belong_together_are_named(
    tmp_path: Path, house: Authority, stranger: Authority
) -> None:
    certificate, secret = house.issue(PBX)
    other = stranger.issue(PBX)[1]
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM")
    good = {"certificate": certificate, "private_key": secret, "ca_file": house.file}
    check_tls_files(TlsSettings.model_validate(good), "sip.pbx.tls")
    for change, says in (
        ({"private_key": other}, "are not a certificate and its"),
        ({"ca_file": junk}, "holds no certificate"),
        ({"certificate": tmp_path / "absent"}, "cannot be read"),
    ):
        with pytest.raises(SetupError, match=says):
            check_tls_files(TlsSettings.model_validate(good | change), "sip.pbx.tls")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[sip.pbx.tls]\ncertificate = "a"\n', "both or none"),
        ('[sip.pbx.tls]\ncertificate = "a"\nprivate_key = "b"\n', "verify_server = false"),
        ("[sip.pbx.tls]\nrequire_client_certificate = true\n", "ca_file"),
        ('[sip.pbx]\nsrtp = "required"\n', "srtp_over_plain"),
        ('[[peers]]\nname = "p"\nnetworks = ["192.0.2.1"]\ntls_only = true\n', "sip.pbx.tls"),
        ('[agents.1]\nuri = "sips:1@192.0.2.1"\n', r"\[sip.phone.tls\]"),
        ('[agents.1]\nuri = "sip:1@192.0.2.1"\nsrtp = "required"\n', "sips:"),
        ('[agents.1]\nuri = "sip:1@192.0.2.1"\n[sip.phone]\ncodecs = ["G722"]\n', "PCMU or PCMA"),
        ('[sip.phone]\ncodecs = ["G729"]\n', "G722"),
        ('[sip.phone]\ncodecs = ["PCMA", "PCMA"]\n', "once"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(
    tmp_path: Path, text: str, says: str
) -> None:
    path = tmp_path / "callshield.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load_settings(path)
